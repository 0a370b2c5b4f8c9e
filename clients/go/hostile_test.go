package transparentllm_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	transparentllm "transparentllm.dev/go"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

// liar answers each RPC with these messages, whatever it is asked.
type liar map[string][]proto.Message

func (l liar) serve(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnknownServiceHandler(l.answer))
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

func (l liar) answer(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	if err := stream.RecvMsg(&emptypb.Empty{}); err != nil {
		return err
	}
	answers, ok := l[method[strings.LastIndex(method, "/")+1:]]
	if !ok {
		return status.Error(codes.Unimplemented, method)
	}
	for _, answer := range answers {
		if err := stream.SendMsg(answer); err != nil {
			return err
		}
	}
	return nil
}

// twoByThree is a run of two rows of three positions.
func twoByThree() *pb.RunResponse {
	return &pb.RunResponse{RunId: "run", BatchSize: 2, NPos: 3, TokenIds: make([]int32, 6), ModelDigest: digestOf("model")}
}

// message is a tensor of zeros that comes in one message.
func message(name string, dtype pb.Dtype, shape []uint64, dims ...string) *pb.TensorChunk {
	bytes := uint64(transparentllm.Dtype(dtype).Size())
	for _, length := range shape {
		bytes *= length
	}
	head := &pb.TensorHeader{Name: name, Dtype: dtype, Shape: shape, Dims: dims, TotalBytes: bytes, Etag: "e"}
	return &pb.TensorChunk{Header: head, Data: make([]byte, bytes)}
}

// honest is what each method answers for a run of two by three; d_model is 4.
var honest = map[string]struct {
	chunk *pb.TensorChunk
	read  func(*transparentllm.Client, ...transparentllm.ReadOption) (*transparentllm.Tensor, error)
}{
	"Logits": {message("logits", pb.Dtype_DTYPE_F32, []uint64{2, 3, 8}, "batch", "pos", "d_vocab"),
		func(llm *transparentllm.Client, options ...transparentllm.ReadOption) (*transparentllm.Tensor, error) {
			return llm.Logits(background, options...)
		}},
	"ResidualIn": {message("residual_in", pb.Dtype_DTYPE_F32, []uint64{2, 3, 4}, "batch", "pos", "d_model"),
		func(llm *transparentllm.Client, options ...transparentllm.ReadOption) (*transparentllm.Tensor, error) {
			return llm.ResidualIn(background, 0, options...)
		}},
	"AttentionMatrix": {message("attention_matrix", pb.Dtype_DTYPE_BF16, []uint64{3, 3}, "query_pos", "key_pos"),
		func(llm *transparentllm.Client, options ...transparentllm.ReadOption) (*transparentllm.Tensor, error) {
			return llm.AttentionMatrix(background, 0, 0, 0, options...)
		}},
	"NeuronOutput": {message("neuron_output", pb.Dtype_DTYPE_F16, []uint64{4}, "d_model"),
		func(llm *transparentllm.Client, options ...transparentllm.ReadOption) (*transparentllm.Tensor, error) {
			return llm.NeuronOutput(background, 0, 0, options...)
		}},
	"DecomposedAttn": {message("decomposed_attn", pb.Dtype_DTYPE_F32, []uint64{3, 3, 1, 4}, "target", "source", "head", "d_model"),
		func(llm *transparentllm.Client, options ...transparentllm.ReadOption) (*transparentllm.Tensor, error) {
			return llm.DecomposedAttn(background, 0, 0, options...)
		}},
	"Fetch": {message("tokens", pb.Dtype_DTYPE_I64, []uint64{2, 3}, "batch", "pos"),
		func(llm *transparentllm.Client, options ...transparentllm.ReadOption) (*transparentllm.Tensor, error) {
			values, err := llm.Fetch(background, []transparentllm.Read{transparentllm.Tokens()}, options...)
			if err != nil {
				return nil, err
			}
			return values[0], nil
		}},
}

// twoRows is a client that has run two sentences on a liar.
func twoRows(t *testing.T, l liar) *transparentllm.Client {
	t.Helper()
	l["Run"] = []proto.Message{twoByThree()}
	llm := dial(t, l.serve(t))
	run(t, llm, "one", "two")
	return llm
}

func TestAValueIsWhatWasAskedFor(t *testing.T) {
	for rpc, c := range honest {
		if _, err := c.read(twoRows(t, liar{rpc: {c.chunk}})); err != nil {
			t.Errorf("%s: %v", rpc, err)
		}
		for name, lie := range map[string]func(*pb.TensorHeader){
			"another name":    func(head *pb.TensorHeader) { head.Name = "ffn_out" },
			"a factor's name": func(head *pb.TensorHeader) { head.Name += ".gain" },
			"another axis":    func(head *pb.TensorHeader) { head.Dims[len(head.Dims)-1] = "nonsense" },
			"an axis more":    func(head *pb.TensorHeader) { head.Dims, head.Shape = append(head.Dims, "more"), append(head.Shape, 1) },
			"no axes":         func(head *pb.TensorHeader) { head.Dims, head.Shape = nil, nil },
			"one of BOOL":     func(head *pb.TensorHeader) { head.Dtype = pb.Dtype_DTYPE_BOOL },
			"integers":        func(head *pb.TensorHeader) { head.Dtype = pb.Dtype_DTYPE_I32 },
			"a longer run":    func(head *pb.TensorHeader) { head.Shape[0]++ },
			"an empty run":    func(head *pb.TensorHeader) { head.Shape[0] = 0 },
		} {
			if rpc == "NeuronOutput" && strings.HasSuffix(name, "run") {
				continue // it reads none
			}
			told := proto.Clone(c.chunk.Header).(*pb.TensorHeader)
			lie(told)
			lying := message(told.Name, told.Dtype, told.Shape, told.Dims...)
			if got, err := c.read(twoRows(t, liar{rpc: {lying}})); !errors.Is(err, transparentllm.ErrInternal) {
				t.Errorf("%s: %s: %v, %v", rpc, name, got, err)
			}
		}
	}
}

func TestAPartIsAsLongAsItWasAskedFor(t *testing.T) {
	last, one := transparentllm.Slice("pos", transparentllm.Start(-1)), transparentllm.Slice("batch", transparentllm.Stop(9), transparentllm.Step(5))
	for _, c := range []struct {
		shape []uint64
		fits  bool
	}{{[]uint64{1, 1, 4}, true}, {[]uint64{1, 3, 4}, false}, {[]uint64{2, 1, 4}, false}} {
		chunk := message("residual_in", pb.Dtype_DTYPE_F32, c.shape, "batch", "pos", "d_model")
		llm := twoRows(t, liar{"ResidualIn": {chunk}})
		if _, err := llm.ResidualIn(background, 0, last, one); c.fits != (err == nil) || (!c.fits && !errors.Is(err, transparentllm.ErrInternal)) {
			t.Errorf("%v: %v", c.shape, err)
		}
		reader, err := llm.Open(background, transparentllm.ResidualIn(0), last, one)
		if c.fits != (err == nil) || (!c.fits && !errors.Is(err, transparentllm.ErrInternal)) {
			t.Errorf("%v, read as a stream: %v", c.shape, err)
		}
		if err == nil {
			io.Copy(io.Discard, reader)
			reader.Close()
		}
	}
}

func TestFactorsAreThoseOfTheRun(t *testing.T) {
	pattern := message("decomposed_attn.pattern", pb.Dtype_DTYPE_F32, []uint64{1, 3, 3}, "head", "target", "source")
	offered := message("decomposed_attn.value_out", pb.Dtype_DTYPE_F32, []uint64{3, 1, 4}, "source", "head", "d_model")
	gain := message("decomposed_attn.gain", pb.Dtype_DTYPE_F32, nil)
	if got, err := twoRows(t, liar{"DecomposedAttn": {pattern, offered, gain}}).DecomposedAttn(background, 0, 0); err != nil || fmt.Sprint(got.Shape()) != "[3 3 1 4]" {
		t.Fatalf("%v, %v", got, err)
	}
	for name, answers := range map[string][]proto.Message{
		"more positions":    {message("decomposed_attn.pattern", pb.Dtype_DTYPE_F32, []uint64{1, 4, 4}, "head", "target", "source"), offered},
		"other axes":        {message("decomposed_attn.pattern", pb.Dtype_DTYPE_F32, []uint64{1, 3, 3}, "target", "head", "source"), offered},
		"integers":          {message("decomposed_attn.pattern", pb.Dtype_DTYPE_I32, []uint64{1, 3, 3}, "head", "target", "source"), offered},
		"halves":            {pattern, message("decomposed_attn.value_out", pb.Dtype_DTYPE_F16, []uint64{3, 1, 4}, "source", "head", "d_model")},
		"an unknown factor": {pattern, offered, message("decomposed_attn.more", pb.Dtype_DTYPE_F32, nil)},
		"no first factor":   {offered, pattern},
	} {
		if got, err := twoRows(t, liar{"DecomposedAttn": answers}).DecomposedAttn(background, 0, 0); !errors.Is(err, transparentllm.ErrInternal) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestARunIsWhatWasSent(t *testing.T) {
	for name, lie := range map[string]func(*pb.RunResponse){
		"no run":             func(answer *pb.RunResponse) { *answer = pb.RunResponse{} },
		"other rows":         func(answer *pb.RunResponse) { answer.BatchSize, answer.NPos = 3, 2 },
		"a product past 32":  func(answer *pb.RunResponse) { answer.BatchSize, answer.NPos = 1<<31, 1<<31 },
		"a product that is":  func(answer *pb.RunResponse) { answer.BatchSize, answer.NPos, answer.TokenIds = 1<<31, 0, nil },
		"half a mask":        func(answer *pb.RunResponse) { answer.Mask = make([]bool, 3) },
		"no name":            func(answer *pb.RunResponse) { answer.RunId = "" },
		"a name of megabyte": func(answer *pb.RunResponse) { answer.RunId = strings.Repeat("x", 1<<20) },
		"no digest":          func(answer *pb.RunResponse) { answer.ModelDigest = "" },
		"a path":             func(answer *pb.RunResponse) { answer.ModelDigest = "../../../../tmp/" + answer.ModelDigest },
		"a long digest":      func(answer *pb.RunResponse) { answer.ModelDigest += "0" },
		"capitals":           func(answer *pb.RunResponse) { answer.ModelDigest = strings.Repeat("A", 64) },
		"control characters": func(answer *pb.RunResponse) { answer.ModelDigest = strings.Repeat("\x1b", 64) },
	} {
		answer := twoByThree()
		lie(answer)
		err := dial(t, liar{"Run": {answer}}.serve(t)).Run(background, []string{"one", "two"})
		if !errors.Is(err, transparentllm.ErrInternal) || len(err.Error()) > 1000 || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%s: %.1000q", name, fmt.Sprint(err))
		}
	}
	tokens := [][]int64{{1, 2}, {3}}
	if err := dial(t, liar{"Run": {twoByThree()}}.serve(t)).RunTokens(background, tokens); !errors.Is(err, transparentllm.ErrInternal) {
		t.Errorf("other positions: %v", err)
	}
}

func TestADigestOfADescriptionIsOne(t *testing.T) {
	for digest, fits := range map[string]bool{digestOf("model"): true, "": true, "../x": false, "/etc/passwd": false, strings.Repeat("F", 64): false} {
		llm := dial(t, liar{"ServerInfo": {&pb.ServerInfoResponse{Models: []*pb.ModelDescription{{Digest: digest}}}}}.serve(t))
		if _, err := llm.ServerInfo(background); fits != (err == nil) || (!fits && !errors.Is(err, transparentllm.ErrInternal)) {
			t.Errorf("%q: %v", digest, err)
		}
	}
}

// neurons are two, in four dimensions.
func neurons(description *pb.ModelDescription, outputs, activations proto.Message) liar {
	info := &pb.ServerInfoResponse{Features: []string{"neuron_outputs"}, Models: []*pb.ModelDescription{description}}
	return liar{"ServerInfo": {info}, "NeuronOutputs": {outputs}, "DecomposedFfnOut": {activations}}
}

func TestOutputVectorsAreThoseOfTheModel(t *testing.T) {
	model := &pb.ModelDescription{Digest: digestOf("model"), DFfn: []uint32{2}, Info: &pb.ModelInfo{DModel: 4}, Dtype: pb.Dtype_DTYPE_F32}
	activations := message("decomposed_ffn_out.activations", pb.Dtype_DTYPE_F32, []uint64{2}, "d_ffn")
	right := message("neuron_outputs", pb.Dtype_DTYPE_F32, []uint64{2, 4}, "d_ffn", "d_model")
	if got, err := twoRows(t, neurons(model, right, activations)).DecomposedFfnOut(background, 0, 0, 0); err != nil || fmt.Sprint(got.Shape()) != "[2 4]" {
		t.Fatalf("%v, %v", got, err)
	}
	for name, outputs := range map[string]*pb.TensorChunk{
		"wider":      message("neuron_outputs", pb.Dtype_DTYPE_F32, []uint64{2, 5}, "d_ffn", "d_model"),
		"more":       message("neuron_outputs", pb.Dtype_DTYPE_F32, []uint64{3, 4}, "d_ffn", "d_model"),
		"turned":     message("neuron_outputs", pb.Dtype_DTYPE_F32, []uint64{4, 2}, "d_model", "d_ffn"),
		"integers":   message("neuron_outputs", pb.Dtype_DTYPE_I32, []uint64{2, 4}, "d_ffn", "d_model"),
		"one vector": message("neuron_output", pb.Dtype_DTYPE_F32, []uint64{4}, "d_model"),
	} {
		if got, err := twoRows(t, neurons(model, outputs, activations)).DecomposedFfnOut(background, 0, 0, 0); !errors.Is(err, transparentllm.ErrInternal) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	huge := &pb.ModelDescription{Digest: digestOf("model"), DFfn: []uint32{1<<32 - 1}, Info: &pb.ModelInfo{DModel: 1<<32 - 1}}
	if got, err := twoRows(t, neurons(huge, right, activations)).DecomposedFfnOut(background, 0, 0, 0); !errors.Is(err, transparentllm.ErrInternal) {
		t.Errorf("a model that no memory holds: %v, %v", got, err)
	}
}

func TestAnEndlessStreamEndsWithItsTime(t *testing.T) {
	p := &peer{logits: []logitsCall{func(_ *pb.LogitsRequest, stream pb.TransparentLlmService_LogitsServer) error {
		if err := stream.Send(&pb.TensorChunk{Header: logitsHead("x", 4)}); err != nil {
			return err
		}
		for {
			if err := stream.Send(&pb.TensorChunk{}); err != nil {
				return err
			}
		}
	}}}
	llm := begun(t, p)
	hasBegun := false
	err := inEnoughTime(500*time.Millisecond, func(ctx context.Context) error {
		return second(llm.Logits(ctx, transparentllm.Progress(func(received, total int64) { hasBegun = true })))
	}, func(error) bool { return hasBegun })
	if !errors.Is(err, transparentllm.ErrDeadline) || !hasBegun {
		t.Errorf("got %v", err)
	}
}

func TestAStreamInCrumbsIsNotAskedForWithoutAPause(t *testing.T) {
	gone := status.Error(codes.Unavailable, "gone")
	p := &peer{logits: []logitsCall{func(request *pb.LogitsRequest, stream pb.TransparentLlmService_LogitsServer) error {
		offset := request.GetOptions().GetResumeOffset()
		return sends(gone, &pb.TensorChunk{Header: logitsHead("x", 1<<20), Offset: offset, Data: []byte{1}})(request, stream)
	}}}
	llm := begun(t, p)
	ctx, cancel := context.WithTimeout(background, time.Second)
	defer cancel()
	if _, err := llm.Logits(ctx); !errors.Is(err, transparentllm.ErrDeadline) || p.timesAsked() > 25 {
		t.Errorf("%v after %d calls", err, p.timesAsked())
	}
}
