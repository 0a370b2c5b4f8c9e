package wire

import (
	pb "transparentllm.dev/go/transparent_llm/v1"
)

// atOnce is the most memory that is taken on the word of a header alone. A larger tensor grows as its bytes arrive, so
// that nobody can end this process by announcing much and sending nothing.
const atOnce = 1 << 30

// Tensor is one that arrived: its header and its elements.
type Tensor struct {
	Header *pb.TensorHeader
	Data   []byte
}

// Assembler puts the tensors of one stream together.
type Assembler struct {
	*Tracker
	held []Tensor
}

// NewAssembler takes the most bytes that one value may have; 0: no limit.
func NewAssembler(maxBytes uint64) *Assembler {
	return &Assembler{Tracker: NewTracker(maxBytes)}
}

// Add takes the next message; errors are those of Tracker.Step.
func (a *Assembler) Add(chunk *pb.TensorChunk) error {
	step, err := a.Step(chunk)
	if err != nil {
		return err
	}
	if step.Restarted {
		a.held = nil
	}
	if step.Begins != nil {
		a.held = append(a.held, Tensor{step.Begins, make([]byte, 0, min(step.Begins.TotalBytes, atOnce))})
	}
	current := &a.held[len(a.held)-1]
	current.Data = append(grown(current, len(chunk.Data)), chunk.Data...)
	return nil
}

// Interrupted says that the stream was and is asked for again from Received on.
func (a *Assembler) Interrupted() {
	a.held = a.held[:len(a.held)-a.Tracker.Interrupted()]
}

// Tensors gives what arrived. A StreamError: there is none, or the last one is not finished.
func (a *Assembler) Tensors() ([]Tensor, error) {
	if !a.Complete() {
		return nil, broken("the stream ended at byte %d of %d", a.Received, a.Total)
	}
	return a.held, nil
}

// grown is the data of a tensor with room for more: twice as much as before, but never more than announced.
func grown(tensor *Tensor, more int) []byte {
	needed := uint64(len(tensor.Data) + more)
	if needed <= uint64(cap(tensor.Data)) {
		return tensor.Data
	}
	room := min(max(needed, 2*uint64(cap(tensor.Data))), tensor.Header.TotalBytes)
	larger := make([]byte, len(tensor.Data), room)
	copy(larger, tensor.Data)
	return larger
}

func min(a, b uint64) uint64 {
	if a < b {
		return a
	}
	return b
}

func max(a, b uint64) uint64 {
	if a > b {
		return a
	}
	return b
}
