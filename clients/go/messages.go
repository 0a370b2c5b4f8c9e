package transparentllm

import (
	"context"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// messages are an answer that comes in several of them, no tensors.
type messages struct {
	rpc    string
	runKey string
	// ask is the request, made anew for each attempt; an error ends the call.
	ask func() (proto.Message, error)
	// next is where the next message is put, which take then looks at; an error of take ends the call.
	next func() proto.Message
	take func(proto.Message) error
}

// receive gets all of them. Where the server is lost, or had no room, it is asked again.
func (c *calls) receive(ctx context.Context, asked messages) error {
	if c.closed.Load() {
		return closedError()
	}
	ctx, cancel := c.begin(ctx, asked.runKey)
	defer cancel()
	retries := newRetries(c)
	for {
		request, err := asked.ask()
		if err != nil {
			return err
		}
		server := c.servers.of(asked.runKey)
		came, lost, err := server.receive(ctx, asked, request)
		if lost == nil {
			c.answered.Store(true)
			return err
		}
		if err := retries.backoff(ctx, c.failed(ctx, server, lost), nil, came > 0); err != nil {
			return err
		}
	}
}

// receive tells how many messages came, what broke the call, and, apart from it, what take did not want.
func (s *server) receive(ctx context.Context, asked messages, request proto.Message) (came int, lost, refused error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	call, err := s.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, servicePath+asked.rpc)
	if err != nil {
		return came, err, nil
	}
	// io.EOF says that the stream is over already; RecvMsg then tells why.
	if err := call.SendMsg(request); err != nil && err != io.EOF {
		return came, err, nil
	}
	if err := call.CloseSend(); err != nil {
		return came, err, nil
	}
	for {
		message := asked.next()
		if err := call.RecvMsg(message); err == io.EOF {
			return came, nil, nil
		} else if err != nil {
			return came, err, nil
		}
		came++
		if err := asked.take(message); err != nil {
			return came, nil, err
		}
	}
}
