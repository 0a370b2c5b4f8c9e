package transparentllm_test

import (
	"errors"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"
	transparentllm "transparentllm.dev/go"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

func TestAPlanIsWhatComes(t *testing.T) {
	llm := ran(t)
	half := transparentllm.WireDtype(transparentllm.BF16)
	last := transparentllm.Slice("pos", transparentllm.Start(-1))
	for name, c := range map[string]struct {
		reads   []transparentllm.Read
		options []transparentllm.ReadOption
	}{
		"values": {[]transparentllm.Read{transparentllm.Tokens(), transparentllm.Logits(), transparentllm.ResidualIn(1),
			transparentllm.DecomposedAttn(0, 1), transparentllm.DecomposedFfnOut(0, 1, 0), transparentllm.DecomposedAttn(1, 0)}, nil},
		"parts of them": {[]transparentllm.Read{transparentllm.Logits(), transparentllm.ResidualOut(0)}, []transparentllm.ReadOption{half, last}},
		"several tensors": {[]transparentllm.Read{transparentllm.LayerLens(0, 1, transparentllm.LensOptions{K: 3}), transparentllm.TokenLogprobs(1),
			transparentllm.LayerLens(0, 0, transparentllm.LensOptions{K: 1, WithKL: true})}, nil},
		"nothing": {nil, nil},
	} {
		plan, err := llm.Plan(background, c.reads, c.options...)
		if err != nil || len(plan) != len(c.reads) {
			t.Errorf("%s: %v, %v", name, plan, err)
			continue
		}
		for i, parts := range must(llm.FetchParts(background, c.reads, c.options...))(t) {
			planned := plan[i].Parts
			if len(planned) == 0 {
				planned = plan[i : i+1]
			}
			sum := int64(0)
			for _, each := range planned {
				got := parts[partName(each.Name)]
				if want := fmt.Sprint(each.Dtype, each.Shape, each.Dims); got == nil || shapeAndDims(got) != want || int64(len(got.Bytes())) != each.Bytes {
					t.Errorf("%s: %s is planned as %s in %d bytes, and %v came", name, each.Name, want, each.Bytes, got)
				}
				sum += each.Bytes
			}
			if sum != plan[i].Bytes || len(planned) < len(parts) {
				t.Errorf("%s: %s of %d bytes, %d parts", name, plan[i].Name, plan[i].Bytes, len(planned))
			}
			isProduct := plan[i].Name == "decomposed_attn" || plan[i].Name == "decomposed_ffn_out"
			if isProduct != (plan[i].TransferBytes < plan[i].Bytes) {
				t.Errorf("%s: %d of %d bytes travel for %s", name, plan[i].TransferBytes, plan[i].Bytes, plan[i].Name)
			}
		}
	}
	if err := llm.Release(background); err != nil {
		t.Fatal(err)
	}
	many := make([]transparentllm.Read, 2001) // in two calls, the first of which makes the lost run again
	for i := range many {
		many[i] = transparentllm.ResidualIn(0)
	}
	if plan := must(llm.Plan(background, many))(t); len(plan) != len(many) {
		t.Errorf("%d of %d reads were planned", len(plan), len(many))
	}
	if err := second(llm.Plan(background, make([]transparentllm.Read, 1))); !errors.Is(err, transparentllm.ErrInvalidRequest) {
		t.Errorf("a read of nothing: %v", err)
	}
	if err := second(llm.Plan(background, []transparentllm.Read{transparentllm.ResidualIn(99)})); !errors.Is(err, transparentllm.ErrIndexOutOfRange) {
		t.Errorf("a layer that there is not: %v", err)
	}
}

// partName is what Parts call a part, or the method where it is one tensor.
func partName(planned string) string {
	for i := range planned {
		if planned[i] == '.' {
			return planned[i+1:]
		}
	}
	return planned
}

func TestAPlanIsOfWhatWasAskedFor(t *testing.T) {
	stream := message("residual_in", pb.Dtype_DTYPE_F32, []uint64{2, 3, 4}, "batch", "pos", "d_model").Header
	plan := func(heads ...*pb.TensorHeader) error {
		info := &pb.ServerInfoResponse{Features: []string{"plan"}}
		llm := twoRows(t, liar{"ServerInfo": {info}, "Plan": {proto.Message(&pb.PlanResponse{Tensors: heads})}})
		return second(llm.Plan(background, []transparentllm.Read{transparentllm.ResidualIn(0)}))
	}
	if err := plan(stream, stream); err != nil {
		t.Fatal(err)
	}
	lying := func(change func(*pb.TensorHeader)) *pb.TensorHeader {
		made := proto.Clone(stream).(*pb.TensorHeader)
		change(made)
		return made
	}
	for name, heads := range map[string][]*pb.TensorHeader{
		"nothing":        {},
		"one":            {stream},
		"three":          {stream, stream, stream},
		"another length": {stream, message("residual_in", pb.Dtype_DTYPE_F32, []uint64{2, 4, 4}, "batch", "pos", "d_model").Header},
		"another value":  {message("ffn_out", pb.Dtype_DTYPE_F32, []uint64{2, 3, 4}, "batch", "pos", "d_model").Header, stream},
		"other bytes":    {lying(func(head *pb.TensorHeader) { head.TotalBytes++ }), stream},
		"a huge shape":   {lying(func(head *pb.TensorHeader) { head.Shape[2] = 1 << 63 }), stream},
		"other axes":     {lying(func(head *pb.TensorHeader) { head.Dims[0] = "pos" }), stream},
	} {
		if err := plan(heads...); !errors.Is(err, transparentllm.ErrInternal) {
			t.Errorf("%s: %v", name, err)
		}
	}
	llm := twoRows(t, liar{"ServerInfo": {&pb.ServerInfoResponse{}}})
	if err := second(llm.Plan(background, nil)); !errors.Is(err, transparentllm.ErrNotSupported) {
		t.Errorf("an old server: %v", err)
	}
}
