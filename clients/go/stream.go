package transparentllm

import (
	"context"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"transparentllm.dev/go/internal/wire"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

// request asks for a stream. The options are a part of the message.
type request struct {
	rpc      string
	message  proto.Message
	options  *pb.TensorOptions
	runKey   string
	expected expecting
}

// expecting is what is known of the tensors of a stream before they come.
type expecting interface {
	// check refuses a header that cannot be one of them.
	check(*pb.TensorHeader) error
	// continues tells whether a tensor is one value together with the one before it, whose size is that of all.
	continues(before, head *pb.TensorHeader) bool
}

// stream receives the messages of one request, over as many calls as it takes.
type stream struct {
	calls   *calls
	request request
	tracker *wire.Tracker
	broke   func() // told before the stream is taken up again
	ctx     context.Context
	cancel  context.CancelFunc
	retries *retries
	begun   bool

	call       grpc.ClientStream // nil: not begun, or broken off
	server     *server           // of the call
	cancelCall context.CancelFunc
	before     uint64 // bytes received when the call began
}

func (c *calls) stream(ctx context.Context, request request, tracker *wire.Tracker, broke func()) *stream {
	ctx, cancel := c.begin(ctx, request.runKey)
	tracker.Check, tracker.Continues = request.expected.check, request.expected.continues
	return &stream{calls: c, request: request, tracker: tracker, broke: broke, ctx: ctx, cancel: cancel, retries: newRetries(c)}
}

// next is the next message, which the tracker must have taken before next is called again; io.EOF after the last.
func (s *stream) next() (*pb.TensorChunk, error) {
	if !s.begun && s.calls.closed.Load() {
		return nil, closedError()
	}
	s.begun = true
	for {
		chunk, err := s.receive()
		if err == nil || err == io.EOF {
			return chunk, err
		}
		failed := s.calls.failed(s.ctx, s.server, err)
		if err := s.retries.backoff(s.ctx, failed, s.tracker, s.tracker.Received > s.before); err != nil {
			return nil, err
		}
		s.again()
	}
}

// again takes the stream up where it broke off.
func (s *stream) again() {
	s.endCall()
	s.broke()
	s.request.options.ResumeOffset, s.request.options.Etag = s.tracker.Received, s.tracker.Etag()
}

// close ends the call, if it is still under way, and tells the server.
func (s *stream) close() {
	s.endCall()
	s.cancel()
}

func (s *stream) receive() (*pb.TensorChunk, error) {
	if s.call == nil {
		if err := s.begin(); err != nil {
			return nil, err
		}
	}
	chunk := &pb.TensorChunk{}
	if err := s.call.RecvMsg(chunk); err != nil {
		return nil, err
	}
	s.calls.answered.Store(true)
	return chunk, nil
}

func (s *stream) begin() error {
	s.before = s.tracker.Received
	ctx, cancel := context.WithCancel(s.ctx)
	s.server = s.calls.servers.of(s.request.runKey)
	call, err := s.server.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, servicePath+s.request.rpc)
	if err != nil {
		cancel()
		return err
	}
	s.call, s.cancelCall = call, cancel
	// io.EOF says that the stream is over already; RecvMsg then tells why.
	if err := call.SendMsg(s.request.message); err != nil && err != io.EOF {
		return err
	}
	if err := call.CloseSend(); err != nil {
		return err
	}
	return nil
}

func (s *stream) endCall() {
	if s.call != nil {
		s.cancelCall()
		s.call, s.cancelCall = nil, nil
	}
}
