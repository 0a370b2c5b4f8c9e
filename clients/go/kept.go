package transparentllm

import (
	"context"
	"strings"

	"google.golang.org/protobuf/proto"
)

// keptValues are tensors of current runs as they came, for a client and its copies. They are the client's own: who reads gets
// a copy of what is kept, and what is kept is a copy of what came, so that callers can write to theirs.
type keptValues struct{ *lru[keptKey, arrival] }

// keptKey is one read of one run: its request, but for the run and the way that it travels.
type keptKey struct {
	run     *run
	request string
}

// one value that takes more than this is not kept, as it would push out everything else.
func (k keptValues) mostBytes() int64 { return k.limit / 4 }

// find gives a copy of what is kept of a read; nil if it is not.
func (k keptValues) find(key keptKey) arrival {
	held, isKept := k.lru.find(key)
	if !isKept {
		return nil
	}
	return held.copied()
}

// keep a copy of what came, unless it is too large, or nobody has the run any more.
func (k keptValues) keep(key keptKey, came arrival) {
	bytes := came.bytes()
	if key.request == "" || bytes <= 0 || bytes > k.mostBytes() || key.run.holders.Load() == 0 {
		return
	}
	k.lru.keep(key, came.copied(), bytes)
}

// hold notes that one more client has the run as its current one. A nil run is none.
func (k keptValues) hold(held *run) {
	if held != nil {
		held.holders.Add(1)
	}
}

// leave notes that one client less has the run; its values go with the last one.
func (k keptValues) leave(held *run) {
	if held != nil && held.holders.Add(-1) == 0 {
		k.forget(func(key keptKey) bool { return key.run == held })
	}
}

// keyOf is what a read is kept under; of one that is not kept the request is empty. A negative index is the one that it stands for.
func (c *Client) keyOf(ctx context.Context, held *run, read Read, reading *reading) (keptKey, error) {
	if c.kept.limit <= 0 {
		return keptKey{}, nil
	}
	counted, err := c.counted(ctx, held, read)
	if err != nil {
		return keptKey{}, err
	}
	message, err := counted.request("", reading.options(read.method, false))
	if err != nil {
		return keptKey{}, err
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil {
		return keptKey{}, failure(ErrInvalidRequest, "%s cannot be sent: %v", read.method.name, err)
	}
	return keptKey{held, read.method.name + " " + string(encoded)}, nil
}

// counted is the same read with indices from the start of their axes, where these are known.
func (c *Client) counted(ctx context.Context, held *run, read Read) (Read, error) {
	made := read
	made.indices = append([]int(nil), read.indices...)
	row := -1
	for i, index := range read.indices {
		name := strings.TrimSuffix(strings.TrimPrefix(read.method.arguments[i], "minus_"), "_i")
		size := 0
		switch {
		case name == "batch":
			size = held.tokens.shape[0]
			row = index
			if row < 0 {
				row += size
			}
		case index >= 0:
		case name == "pos" && row >= 0 && row < held.tokens.shape[0]:
			size = held.length(row)
		case name == "layer" || name == "head":
			model, err := c.description(ctx, held.digest)
			if err != nil {
				return made, err
			}
			if size = int(model.GetInfo().GetNLayers()); name == "head" {
				size = int(model.GetInfo().GetNHeads())
			}
		}
		if index < 0 && index+size >= 0 {
			made.indices[i] = index + size
		}
	}
	return made, nil
}

func (a arrival) bytes() (sum int64) {
	for _, tensor := range a {
		sum += int64(len(tensor.data))
	}
	return sum
}

func (a arrival) copied() arrival {
	made := make(arrival, len(a))
	for name, tensor := range a {
		made[name] = &Tensor{tensor.dtype, tensor.shape, tensor.dims, append([]byte(nil), tensor.data...)}
	}
	return made
}
