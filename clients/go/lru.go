package transparentllm

import (
	"container/list"
	"sync"
)

// lru keeps values by key within a limit in bytes; the least recently used go first. It is safe for concurrent use; nobody writes
// to what is in here.
type lru[K comparable, V any] struct {
	limit int64
	mutex sync.Mutex // of what follows
	kept  map[K]*list.Element
	order *list.List // of entries, least recently used first
	bytes int64
}

type entry[K comparable, V any] struct {
	key   K
	value V
	bytes int64
}

func newLRU[K comparable, V any](limit int64) *lru[K, V] {
	return &lru[K, V]{limit: limit, kept: map[K]*list.Element{}, order: list.New()}
}

// find gives a value, and whether it is kept.
func (l *lru[K, V]) find(key K) (value V, isKept bool) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	held, isKept := l.kept[key]
	if !isKept {
		return value, false
	}
	l.order.MoveToBack(held)
	return held.Value.(entry[K, V]).value, true
}

// keep a value of so many bytes, in the place of one with its key.
func (l *lru[K, V]) keep(key K, value V, bytes int64) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.remove(key)
	l.kept[key] = l.order.PushBack(entry[K, V]{key, value, bytes})
	l.bytes += bytes
	for l.bytes > l.limit && l.order.Len() > 0 {
		l.remove(l.order.Front().Value.(entry[K, V]).key)
	}
}

// forget drops all values with such keys.
func (l *lru[K, V]) forget(belongs func(K) bool) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	for key := range l.kept {
		if belongs(key) {
			l.remove(key)
		}
	}
}

// remove drops a value, if there is one. The caller holds the mutex.
func (l *lru[K, V]) remove(key K) {
	if held, isKept := l.kept[key]; isKept {
		l.bytes -= l.order.Remove(held).(entry[K, V]).bytes
		delete(l.kept, key)
	}
}
