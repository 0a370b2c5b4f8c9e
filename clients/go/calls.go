package transparentllm

import (
	"context"
	"io"
	"sync/atomic"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"transparentllm.dev/go/internal/wire"
)

const (
	runKeyHeader = "x-transparent-llm-run-key"
	// Tensors come in chunks of at most 4 MiB; the rest is tokens.
	maxMessageBytes = 16 << 20
	// Of a status with its details, and of all headers before.
	maxHeaderBytes = 64 << 10
	// A server that does not finish the handshake within this time counts as absent.
	longestConnect = 5 * time.Second
	// During a call that brings nothing for so long the server is asked for a sign of life, and is lost if it gives none
	// for as long again.
	keepaliveAfter = 20 * time.Second
	// How long a new attempt to connect may take to begin.
	reconnectWait = 100 * time.Millisecond
)

// calls is the choke point: every call goes through unary or stream. Shared by a client and its copies.
type calls struct {
	config
	servers  servers
	answered atomic.Bool
	closed   atomic.Bool
	closing  chan struct{} // closed with it
}

func dialled(config config) (*calls, error) {
	servers, err := dialledServers(config)
	if err != nil {
		return nil, err
	}
	return &calls{config: config, servers: servers, closing: make(chan struct{})}, nil
}

func (c *calls) close() error {
	if c.closed.Swap(true) {
		return nil
	}
	close(c.closing)
	return c.servers.close()
}

// begin is the context of a call as a whole: with its deadline and its headers.
func (c *calls) begin(ctx context.Context, runKey string) (context.Context, context.CancelFunc) {
	if runKey != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, runKeyHeader, runKey)
	}
	if c.token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.token)
	}
	return context.WithTimeout(ctx, c.timeout)
}

// unary sends one message and gets one. Again, if a server that had answered was lost on the way, or had no room: equal
// requests have equal effects.
func (c *calls) unary(ctx context.Context, rpc string, request, response proto.Message, runKey string) error {
	ctx, cancel := c.begin(ctx, runKey)
	defer cancel()
	retries := newRetries(c)
	if c.closed.Load() {
		return closedError()
	}
	for {
		server := c.servers.of(runKey)
		err := server.conn.Invoke(ctx, servicePath+rpc, request, response)
		if err == nil {
			c.answered.Store(true)
			return nil
		}
		if err := retries.backoff(ctx, c.failed(ctx, server, err), nil, false); err != nil {
			return err
		}
	}
}

func (c *calls) isServing(ctx context.Context) (bool, error) {
	if c.closed.Load() {
		return false, closedError()
	}
	ctx, cancel := c.begin(ctx, "")
	defer cancel()
	for range c.servers {
		server := c.servers.of("")
		answer, err := healthpb.NewHealthClient(server.conn).Check(ctx, &healthpb.HealthCheckRequest{})
		if err == nil {
			return answer.Status == healthpb.HealthCheckResponse_SERVING, nil
		}
		failed := c.failed(ctx, server, err)
		if failed.Class != ErrUnavailable && failed.Class != ErrDeadline {
			return false, failed
		}
	}
	return false, nil
}

// tensors receives all of a stream, of so many tensors at most; one that broke is taken up where it broke off.
func (c *calls) tensors(ctx context.Context, request request, most int, progress func(received, total int64)) ([]wire.Tensor, error) {
	assembler := wire.NewAssembler(uint64(c.maxBytes))
	assembler.Most = most
	stream := c.stream(ctx, request, assembler.Tracker, assembler.Interrupted)
	defer stream.close()
	for {
		chunk, err := stream.next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = assembler.Add(chunk)
		}
		if err != nil {
			return nil, FromError(err, c.target)
		}
		if progress != nil {
			progress(int64(assembler.Received), int64(assembler.Total))
		}
	}
	tensors, err := assembler.Tensors()
	if err != nil {
		return nil, FromError(err, c.target)
	}
	return tensors, nil
}

// tensor receives a stream of one tensor.
func (c *calls) tensor(ctx context.Context, request request, progress func(received, total int64)) (*Tensor, error) {
	tensors, err := c.tensors(ctx, request, 1, progress)
	if err != nil {
		return nil, err
	}
	return arrived(tensors[0]), nil
}

// failed gives our error for gRPC's, of a call to a server; nil: of none.
func (c *calls) failed(ctx context.Context, server *server, err error) *Error {
	switch {
	case ctx.Err() == context.Canceled:
		cancelled := failure(ErrCancelled, "the call to %s was cancelled", c.target)
		cancelled.cause = err
		return cancelled
	case c.closed.Load():
		cancelled := failure(ErrCancelled, "the client was closed during the call")
		cancelled.cause = err
		return cancelled
	case server == nil:
		return FromError(err, c.target)
	}
	return server.failed(err)
}

func closedError() *Error {
	return failure(ErrInvalidRequest, "this client is closed; make a new one with Dial")
}
