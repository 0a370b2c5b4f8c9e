package transparentllm_test

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// gate leads to a server until it is closed.
type gate struct {
	address  string
	listener net.Listener
	bytes    atomic.Int64 // that servers sent
	mutex    sync.Mutex
	open     []net.Conn
}

func newGate(t *testing.T, target string) *gate {
	t.Helper()
	made := &gate{listener: must(net.Listen("tcp", "127.0.0.1:0"))(t)}
	made.address = made.listener.Addr().String()
	t.Cleanup(made.close)
	go func() {
		for {
			here, err := made.listener.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("tcp", target)
			if err != nil {
				here.Close()
				continue
			}
			made.mutex.Lock()
			made.open = append(made.open, here, there)
			made.mutex.Unlock()
			for from, to := range map[net.Conn]net.Conn{here: there, there: here} {
				go func(from, to net.Conn, isServer bool) {
					defer to.Close()
					buffer := make([]byte, 1<<16)
					for {
						count, err := from.Read(buffer)
						if err != nil {
							return
						}
						if isServer {
							made.bytes.Add(int64(count))
						}
						if _, err := to.Write(buffer[:count]); err != nil {
							return
						}
					}
				}(from, to, from == there)
			}
		}
	}()
	return made
}

// carried is how many bytes servers sent.
func (g *gate) carried() int64 { return g.bytes.Load() }

func (g *gate) close() {
	g.listener.Close()
	g.mutex.Lock()
	defer g.mutex.Unlock()
	for _, conn := range g.open {
		conn.Close()
	}
}
