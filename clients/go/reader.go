package transparentllm

import (
	"context"
	"io"

	"transparentllm.dev/go/internal/wire"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

// Header describes the tensor whose elements a TensorReader gives.
type Header struct {
	// Name is the method's, in snake case.
	Name  string
	Dtype Dtype
	// Shape is the length of each axis, Dims their names.
	Shape []int
	Dims  []string
	// TotalBytes is the number of bytes that Read gives until io.EOF.
	TotalBytes int64
}

// TensorReader reads the raw elements of one value as they arrive: in C order, little-endian. It holds one piece of the
// value at a time, so that a large one can be written to a file. It is for one goroutine.
type TensorReader struct {
	client  *Client
	ctx     context.Context
	cancel  context.CancelFunc
	run     *run
	reruns  int
	stream  *stream
	tracker *wire.Tracker
	reading *reading
	head    *pb.TensorHeader
	header  Header
	pending []byte
	err     error // of all further reads
}

// Open begins to read one value of the current run. The time of the call, that of its context or WithTimeout, is for all
// of the reading. The caller closes the reader.
//
// An interruption is mended, and a lost run is run again, as long as the server promises the same bits; otherwise Read returns
// ErrUnavailable, unless none of the old ones was given out yet. Errors: those of the read.
func (c *Client) Open(ctx context.Context, read Read, options ...ReadOption) (*TensorReader, error) {
	if err := read.requireOneTensor("Open"); err != nil {
		return nil, err
	}
	reading, err := readingOf(options, read.method)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.calls.timeout)
	var opened *TensorReader
	err = c.ofRun(ctx, func(held *run) (err error) {
		opened, err = c.open(ctx, held, read, reading)
		return err
	})
	if err != nil {
		cancel()
		return nil, err
	}
	opened.cancel = cancel
	return opened, nil
}

func (c *Client) open(ctx context.Context, held *run, read Read, reading *reading) (*TensorReader, error) {
	made, err := c.requestOf(held, read, reading, false)
	if err != nil {
		return nil, err
	}
	tracker := wire.NewTracker(uint64(c.calls.maxBytes))
	tracker.Most = 1
	opened := &TensorReader{client: c, ctx: ctx, run: held, tracker: tracker, reading: reading}
	opened.stream = c.calls.stream(ctx, made, tracker, func() { tracker.Interrupted() })
	if err := opened.begin(); err != nil {
		opened.stream.close()
		return nil, err
	}
	return opened, nil
}

// begin takes the first message.
func (r *TensorReader) begin() error {
	chunk, err := r.stream.next()
	if err == io.EOF {
		return failure(ErrInternal, "%s sent nothing", r.client.calls.target)
	}
	if err != nil {
		return err
	}
	step, err := r.tracker.Step(chunk)
	if err != nil {
		return FromError(err, r.client.calls.target)
	}
	described := arrived(wire.Tensor{Header: step.Begins})
	r.head = step.Begins
	r.header = Header{step.Begins.Name, described.dtype, described.shape, described.Dims(), int64(step.Begins.TotalBytes)}
	r.pending = chunk.Data
	r.report()
	return nil
}

// Header describes the tensor.
func (r *TensorReader) Header() Header { return r.header }

// Read gives the next bytes; io.EOF after the last. Any other error is an *Error and stays.
func (r *TensorReader) Read(into []byte) (int, error) {
	for len(r.pending) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		if len(into) == 0 {
			return 0, nil
		}
		r.err = r.fill()
	}
	count := copy(into, r.pending)
	r.pending = r.pending[count:]
	return count, nil
}

// Close ends the transfer and tells the server, if it is still under way.
func (r *TensorReader) Close() error {
	r.stream.close()
	r.cancel()
	r.pending = nil
	r.err = failure(ErrInvalidRequest, "this reader is closed")
	return nil
}

// fill takes the next message.
func (r *TensorReader) fill() error {
	chunk, err := r.stream.next()
	for ; r.client.mayRerun(err) && r.reruns < mostReruns; chunk, err = r.stream.next() {
		r.reruns++
		if err := r.runAgain(); err != nil {
			return err
		}
	}
	if err == io.EOF && !r.tracker.Complete() {
		return failure(ErrInternal, "%s broke the protocol: the stream ended at byte %d of %d", r.client.calls.target,
			r.tracker.Received, r.tracker.Total)
	}
	if err != nil {
		return err
	}
	given := r.tracker.Received
	step, err := r.tracker.Step(chunk)
	switch {
	case err != nil:
		return FromError(err, r.client.calls.target)
	case step.Restarted && (given > 0 || !wire.SameTensor(step.Begins, r.head)):
		return failure(ErrUnavailable, "the stream broke at byte %d, and %s can no longer promise the same bits: read it "+
			"again from the beginning", given, r.client.calls.target)
	case step.Begins != nil && (given > 0 || !wire.SameTensor(step.Begins, r.head)):
		return failure(ErrInternal, "%s sent a second tensor for one value", r.client.calls.target)
	}
	r.pending = chunk.Data
	r.report()
	return nil
}

// runAgain makes the run again that the server lost. Its id is a hash of the same input, so that the request stays right.
func (r *TensorReader) runAgain() error {
	again, err := r.client.runAgain(r.ctx, r.run)
	if err != nil {
		return err
	}
	if again.id != r.run.id {
		return failure(ErrInternal, "%s gave the same input another run id", r.client.calls.target)
	}
	r.run = again
	r.stream.again()
	return nil
}

func (r *TensorReader) report() {
	if r.reading.progress != nil {
		r.reading.progress(int64(r.tracker.Received), int64(r.tracker.Total))
	}
}
