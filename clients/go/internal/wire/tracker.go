package wire

import (
	pb "transparentllm.dev/go/transparent_llm/v1"
)

// Tracker follows the messages of a stream, of several calls if it was interrupted, and checks them. It keeps no data.
type Tracker struct {
	// Most is how many tensors were asked for, so that nobody can fill the memory with headers; 0: no limit.
	Most int
	// Check refuses the header of a tensor that was not asked for, before memory is taken for it; nil refuses none.
	Check func(*pb.TensorHeader) error
	// Continues tells whether a tensor is of one value with the one before, so that maxBytes is for both; nil: none is.
	Continues func(before, head *pb.TensorHeader) bool
	maxBytes  uint64
	tensors   []*arrival
	etag      string
	begun     bool
	goesOn    bool
	// Received counts data bytes and Total those that were announced, over all tensors whose header has come.
	Received, Total uint64
}

type arrival struct {
	head     *pb.TensorHeader
	received uint64
}

// Step says what a message does.
type Step struct {
	// Begins is the header of the tensor that begins with this message; nil if the data belong to the one before.
	Begins *pb.TensorHeader
	// Restarted says that all that came before is void: the server could not promise the same bits.
	Restarted bool
}

// NewTracker takes the most bytes that one value may have; 0: no limit.
func NewTracker(maxBytes uint64) *Tracker {
	return &Tracker{maxBytes: maxBytes}
}

// Etag is that of the stream so far; empty before its first header.
func (t *Tracker) Etag() string { return t.etag }

// HasBegun tells whether a header has come.
func (t *Tracker) HasBegun() bool { return t.begun }

// Complete tells whether every byte that was announced is there.
func (t *Tracker) Complete() bool { return len(t.tensors) > 0 && t.Received == t.Total }

// Step takes the next message.
//
// Errors: a StreamError for no header, a gap, more data than announced, a header that contradicts itself or the one
// before the interruption; a TooLargeError; those of Check. The stream is of no use then.
func (t *Tracker) Step(chunk *pb.TensorChunk) (Step, error) {
	if chunk.Shared != nil {
		return Step{}, broken("data in shared memory that was not offered")
	}
	if chunk.Header == nil && (t.goesOn || len(t.tensors) == 0) {
		return Step{}, broken("the stream began without a header")
	}
	step := Step{}
	if chunk.Header != nil {
		var err error
		if step, err = t.begin(chunk.Header, chunk.Offset); err != nil {
			return Step{}, err
		}
	}
	t.goesOn = false
	current, size := t.tensors[len(t.tensors)-1], uint64(len(chunk.Data))
	if chunk.Offset != current.received || size > current.head.TotalBytes-current.received {
		return Step{}, broken("chunk of %d bytes at %d after byte %d of %d", size, chunk.Offset, current.received,
			current.head.TotalBytes)
	}
	current.received += size
	t.Received += size
	return step, nil
}

// Interrupted says that the stream was and is asked for again from Received on. What has no bytes yet will be sent again.
func (t *Tracker) Interrupted() (dropped int) {
	for len(t.tensors) > 0 && t.tensors[len(t.tensors)-1].received == 0 {
		t.Total -= t.tensors[len(t.tensors)-1].head.TotalBytes
		t.tensors = t.tensors[:len(t.tensors)-1]
		dropped++
	}
	t.goesOn = true
	return dropped
}

func (t *Tracker) begin(head *pb.TensorHeader, offset uint64) (Step, error) {
	if err := CheckHeader(head); err != nil {
		return Step{}, err
	}
	same := t.begun && head.Etag == t.etag
	if same && t.goesOn && offset > 0 && len(t.tensors) > 0 {
		if !SameTensor(t.tensors[len(t.tensors)-1].head, head) {
			return Step{}, broken("a header with the etag of the broken stream describes another tensor")
		}
		return Step{}, nil
	}
	if same && t.Received < t.Total {
		return Step{}, broken("%q begins at byte %d of %d", head.Name, t.Received, t.Total)
	}
	if t.begun && !same && !t.goesOn {
		return Step{}, broken("the etag changed within a stream")
	}
	if t.Check != nil {
		if err := t.Check(head); err != nil {
			return Step{}, err
		}
	}
	restarted := t.begun && !same
	needed := head.TotalBytes
	if !restarted {
		needed += t.ofSameValue(head)
	}
	if t.maxBytes > 0 && needed > t.maxBytes {
		return Step{}, &TooLargeError{head.Name, needed, t.maxBytes}
	}
	return t.add(head, restarted)
}

// ofSameValue counts the bytes of the tensors before this one that are one value together with it.
func (t *Tracker) ofSameValue(head *pb.TensorHeader) (sum uint64) {
	if t.Continues == nil {
		return 0
	}
	for i := len(t.tensors) - 1; i >= 0 && t.Continues(t.tensors[i].head, head); i-- {
		head = t.tensors[i].head
		sum += head.TotalBytes
	}
	return sum
}

func (t *Tracker) add(head *pb.TensorHeader, restarted bool) (Step, error) {
	if restarted {
		t.tensors, t.Received, t.Total = nil, 0, 0
	}
	if t.Most > 0 && len(t.tensors) == t.Most {
		return Step{}, broken("%q begins after the %d tensors that were asked for", head.Name, t.Most)
	}
	if t.Total+head.TotalBytes < t.Total {
		return Step{}, broken("the tensors of the stream are larger than can be counted")
	}
	t.tensors = append(t.tensors, &arrival{head: head})
	t.Total += head.TotalBytes
	t.etag, t.begun = head.Etag, true
	return Step{Begins: head, Restarted: restarted}, nil
}
