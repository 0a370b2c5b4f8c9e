package transparentllm

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"transparentllm.dev/go/internal/wire"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

// largest is a method of several tensors, as one of tomorrow may be: Logits answers it here.
func largest(t *testing.T) *method {
	before := methods["logits"]
	t.Cleanup(func() { methods["logits"] = before })
	methods["logits"] = &method{name: "logits", rpc: "Logits", ofRun: true, parts: []part{
		{name: "values", dims: []string{"batch", "pos", "k"}},
		{name: "ids", dims: []string{"batch", "pos", "k"}, dtype: I64},
		{name: "rest", dims: []string{"batch"}, dtype: F32, optional: true, sparse: true},
	}}
	return methods["logits"]
}

func ofPart(name string, dtype Dtype, shape ...uint64) *pb.TensorChunk {
	head := &pb.TensorHeader{Name: "logits." + name, Dtype: pb.Dtype(dtype), Shape: shape, Dims: []string{"batch", "pos", "k"}[:len(shape)],
		Etag: "x"}
	head.TotalBytes, _ = wire.ByteCount(head.Dtype, shape)
	return &pb.TensorChunk{Header: head, Data: make([]byte, head.TotalBytes)}
}

// sender answers a run of one row of two tokens, and each read of it with its chunks; the first of them break off before `breaks`.
type sender struct {
	pb.UnimplementedTransparentLlmServiceServer
	chunks []*pb.TensorChunk
	breaks int
	calls  int32
	asked  *pb.LogitsRequest
}

func (s *sender) Run(context.Context, *pb.RunRequest) (*pb.RunResponse, error) {
	return &pb.RunResponse{RunId: "run", BatchSize: 1, NPos: 2, TokenIds: []int32{7, 8}, Mask: []bool{true, true},
		ModelDigest: strings.Repeat("0", 64)}, nil
}

func (s *sender) Logits(asked *pb.LogitsRequest, stream pb.TransparentLlmService_LogitsServer) error {
	s.asked = asked
	return s.send(stream)
}

func (s *sender) Fetch(_ *pb.FetchRequest, stream pb.TransparentLlmService_FetchServer) error {
	return s.send(stream)
}

func (s *sender) send(stream interface{ Send(*pb.TensorChunk) error }) error {
	chunks := s.chunks
	if first := atomic.AddInt32(&s.calls, 1) == 1; s.breaks > 0 && first {
		chunks = chunks[:s.breaks]
	} else if s.breaks > 0 {
		chunks = chunks[s.breaks:]
	}
	for _, chunk := range chunks {
		if err := stream.Send(chunk); err != nil {
			return err
		}
	}
	if s.breaks > 0 && atomic.LoadInt32(&s.calls) == 1 {
		return status.Error(codes.Unavailable, "lost")
	}
	return nil
}

func (s *sender) client(t *testing.T, options ...Option) *Client {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterTransparentLlmServiceServer(server, s)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	llm, err := Dial(listener.Addr().String(), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { llm.Close() })
	if err := llm.RunTokens(context.Background(), [][]int64{{7, 8}}); err != nil {
		t.Fatal(err)
	}
	return llm
}

func TestSeveralTensorsAreOneValue(t *testing.T) {
	largest(t)
	values, ids := ofPart("values", F32, 1, 2, 3), ofPart("ids", I64, 1, 2, 3)
	values.Data[3], ids.Data[8] = 0x40, 9
	for name, server := range map[string]*sender{
		"whole":                 {chunks: []*pb.TensorChunk{values, ids}},
		"broken between":        {chunks: []*pb.TensorChunk{values, ids}, breaks: 1},
		"with an optional part": {chunks: []*pb.TensorChunk{values, ids, ofPart("rest", F32, 1)}},
		"with less of that":     {chunks: []*pb.TensorChunk{values, ids, ofPart("rest", F32, 0)}},
	} {
		llm := server.client(t)
		came, err := llm.readParts(context.Background(), Logits(), nil)
		if err != nil || len(came) != len(server.chunks) {
			t.Fatalf("%s: %v, %v", name, came, err)
		}
		if got, _ := came["values"].At(0, 0, 0); got != 2 || came["values"].dtype != F32 {
			t.Errorf("%s: values begin with %v", name, got)
		}
		if got, _ := came["ids"].Int64s(); got[1] != 9 {
			t.Errorf("%s: ids are %v", name, got)
		}
	}
}

func TestFetchPartsBringsValuesOfOneTensorAndOfSeveral(t *testing.T) {
	largest(t)
	residual := &pb.TensorChunk{Data: make([]byte, 16), Header: &pb.TensorHeader{Name: "residual_in", Dtype: pb.Dtype_DTYPE_F32,
		Shape: []uint64{1, 2, 2}, Dims: []string{"batch", "pos", "d_model"}, TotalBytes: 16, Etag: "x"}}
	server := &sender{chunks: []*pb.TensorChunk{ofPart("values", F32, 1, 2, 3), ofPart("ids", I64, 1, 2, 3), residual,
		ofPart("values", F32, 1, 2, 1), ofPart("ids", I64, 1, 2, 1)}}
	llm := server.client(t)
	got, err := llm.FetchParts(context.Background(), []Read{Logits(), ResidualIn(0), Logits()})
	if err != nil || len(got) != 3 {
		t.Fatalf("%v, %v", got, err)
	}
	if got[0]["ids"].Len() != 6 || got[2]["ids"].Len() != 2 || got[1]["residual_in"].Len() != 4 || len(got[1]) != 1 {
		t.Errorf("%v", got)
	}
}

func TestAReadOfSeveralTensorsIsRefusedWhereOneIsTaken(t *testing.T) {
	largest(t)
	llm := (&sender{}).client(t)
	_, ofFetch := llm.Fetch(context.Background(), []Read{ResidualIn(0), Logits()})
	_, ofOpen := llm.Open(context.Background(), Logits())
	for _, err := range []error{ofFetch, ofOpen} {
		if !errors.Is(err, ErrInvalidRequest) || !strings.Contains(err.Error(), "is several: values, ids, rest; FetchParts reads") {
			t.Errorf("%v", err)
		}
	}
}

func TestPartsThatAreNotThoseOfTheValue(t *testing.T) {
	largest(t)
	values, ids := ofPart("values", F32, 1, 2, 3), ofPart("ids", I64, 1, 2, 3)
	whole := ofPart("values", F32, 1, 2, 3)
	whole.Header.Name = "logits"
	for name, chunks := range map[string][]*pb.TensorChunk{
		"one missing":        {values},
		"another order":      {ids, values},
		"one twice":          {values, values, ids},
		"the last twice":     {values, ids, ids},
		"a whole value":      {whole},
		"an unknown part":    {values, ids, ofPart("more", F32, 1)},
		"an unnamed part":    {values, ids, ofPart("", F32, 1)},
		"another type":       {values, ofPart("ids", I32, 1, 2, 3)},
		"no floating type":   {ofPart("values", I32, 1, 2, 3), ids},
		"another length":     {ofPart("values", F32, 1, 1, 3), ids},
		"more than there is": {values, ids, ofPart("rest", F32, 2)},
		"two values":         {values, ids, values, ids},
	} {
		llm := (&sender{chunks: chunks}).client(t)
		if got, err := llm.readParts(context.Background(), Logits(), nil); !errors.Is(err, ErrInternal) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestTheSizeOfAValueIsThatOfItsParts(t *testing.T) {
	largest(t)
	chunks := []*pb.TensorChunk{ofPart("values", F32, 1, 2, 3), ofPart("ids", I64, 1, 2, 3)} // 24 and 48 bytes
	for _, breaks := range []int{0, 1} {
		server := &sender{chunks: chunks, breaks: breaks}
		if got, err := server.client(t, WithMaxBytes(72)).readParts(context.Background(), Logits(), nil); err != nil {
			t.Errorf("72 bytes: %v, %v", got, err)
		}
		server = &sender{chunks: chunks, breaks: breaks}
		got, err := server.client(t, WithMaxBytes(71)).readParts(context.Background(), Logits(), nil)
		var failed *Error
		if !errors.As(err, &failed) || failed.Class != ErrTooLarge || failed.Metadata["needed"] != "72" || failed.Metadata["allowed"] != "71" {
			t.Errorf("71 bytes: %v, %v", got, err)
		}
	}
	twice := &sender{chunks: append(append([]*pb.TensorChunk{}, chunks...), chunks...)}
	if got, err := twice.client(t, WithMaxBytes(72)).FetchParts(context.Background(), []Read{Logits(), Logits()}); err != nil || len(got) != 2 {
		t.Errorf("two values of 72 bytes: %v, %v", got, err)
	}
}

func TestPartsAreCutAndCastAsAsked(t *testing.T) {
	m := largest(t)
	server := &sender{chunks: []*pb.TensorChunk{ofPart("values", BF16, 1, 1, 3), ofPart("ids", I64, 1, 1, 3)}}
	llm := server.client(t)
	options := []ReadOption{Slice("pos", Start(-1)), WireDtype(BF16)}
	if _, err := llm.readParts(context.Background(), Logits(), options); err != nil {
		t.Fatal(err)
	}
	if sent := server.asked.Options; len(sent.Slices) != 1 || sent.Slices[0].Axis != "pos" || Dtype(sent.Dtype) != BF16 || sent.Encoding != 0 {
		t.Errorf("asked for %v", sent)
	}
	if got := strings.Join(m.axes(), " "); got != "batch pos k" {
		t.Errorf("the axes are %s", got)
	}
	if _, err := llm.readParts(context.Background(), Logits(), []ReadOption{Slice("d_model")}); !errors.Is(err, ErrInvalidRequest) {
		t.Errorf("an axis that no part has: %v", err)
	}
}
