package transparentllm_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

// peer is another end of the protocol, that does what no real server would at that moment.
type peer struct {
	pb.UnimplementedTransparentLlmServiceServer
	// runs and logits are what it does at each call; the last one again after that.
	runs   []func() (*pb.RunResponse, error)
	logits []func(*pb.LogitsRequest, pb.TransparentLlmService_LogitsServer) error
	// generations are those calls; it offers them where it has any.
	generations []func(pb.TransparentLlmService_GenerateServer) error

	mutex     sync.Mutex
	asked     []*pb.LogitsRequest
	runCalls  int
	generated int
	headers   []metadata.MD
}

func (p *peer) serve(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterTransparentLlmServiceServer(server, p)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

func (p *peer) Run(ctx context.Context, _ *pb.RunRequest) (*pb.RunResponse, error) {
	p.mutex.Lock()
	p.runCalls++
	call := p.runCalls
	headers, _ := metadata.FromIncomingContext(ctx)
	p.headers = append(p.headers, headers)
	p.mutex.Unlock()
	if len(p.runs) == 0 {
		return aRun("model"), nil
	}
	return p.runs[least(call, len(p.runs))-1]()
}

func (p *peer) Logits(request *pb.LogitsRequest, stream pb.TransparentLlmService_LogitsServer) error {
	p.mutex.Lock()
	p.asked = append(p.asked, request)
	call := len(p.asked)
	headers, _ := metadata.FromIncomingContext(stream.Context())
	p.headers = append(p.headers, headers)
	p.mutex.Unlock()
	return p.logits[least(call, len(p.logits))-1](request, stream)
}

func (p *peer) ServerInfo(context.Context, *pb.ServerInfoRequest) (*pb.ServerInfoResponse, error) {
	if len(p.generations) == 0 {
		return nil, status.Error(codes.Unimplemented, "nothing is known of this peer")
	}
	return &pb.ServerInfoResponse{Features: []string{"generate"}}, nil
}

func (p *peer) Generate(_ *pb.GenerateRequest, stream pb.TransparentLlmService_GenerateServer) error {
	p.mutex.Lock()
	p.generated++
	call := p.generated
	p.mutex.Unlock()
	return p.generations[least(call, len(p.generations))-1](stream)
}

// timesAsked is how often logits were asked for.
func (p *peer) timesAsked() int {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return len(p.asked)
}

// digestOf is that of a model of this name.
func digestOf(model string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(model))) }

func aRun(model string) *pb.RunResponse {
	return &pb.RunResponse{RunId: "run", BatchSize: 1, NPos: 1, TokenIds: []int32{7}, Mask: []bool{true}, ModelDigest: digestOf(model)}
}

// logitsHead is a header of so many bytes, an even number.
func logitsHead(etag string, bytes uint64) *pb.TensorHeader {
	return &pb.TensorHeader{Name: "logits", Dtype: pb.Dtype_DTYPE_F16, Shape: []uint64{1, 1, bytes / 2},
		Dims: []string{"batch", "pos", "d_vocab"}, TotalBytes: bytes, Etag: etag}
}

// sends is a call that sends these messages and ends so.
func sends(end error, chunks ...*pb.TensorChunk) func(*pb.LogitsRequest, pb.TransparentLlmService_LogitsServer) error {
	return func(_ *pb.LogitsRequest, stream pb.TransparentLlmService_LogitsServer) error {
		for _, chunk := range chunks {
			if err := stream.Send(chunk); err != nil {
				return err
			}
		}
		return end
	}
}

func least(a, b int) int {
	if a < b {
		return a
	}
	return b
}
