package transparentllm_test

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"google.golang.org/protobuf/proto"
	transparentllm "transparentllm.dev/go"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

// product of two matrices of a tensor's numbers.
func product(t *testing.T, left, right *transparentllm.Tensor, isTransposed bool) [][]float64 {
	t.Helper()
	rows, inner, columns := left.Shape()[0], left.Shape()[1], right.Shape()[1]
	if isTransposed {
		columns = right.Shape()[0]
	}
	a, b := must(left.Float64s())(t), must(right.Float64s())(t)
	made := make([][]float64, rows)
	for i := range made {
		made[i] = make([]float64, columns)
		for j := range made[i] {
			for k := 0; k < inner; k++ {
				place := k*columns + j
				if isTransposed {
					place = j*inner + k
				}
				made[i][j] += a[i*inner+k] * b[place]
			}
		}
	}
	return made
}

// norms of two matrices and of their product.
func score(left, right [][]float64) float64 {
	norm := func(of [][]float64) (sum float64) {
		for _, row := range of {
			for _, each := range row {
				sum += each * each
			}
		}
		return math.Sqrt(sum)
	}
	made := make([][]float64, len(left))
	for i := range made {
		made[i] = make([]float64, len(right[0]))
		for k, each := range left[i] {
			for j := range made[i] {
				made[i][j] += each * right[k][j]
			}
		}
	}
	return norm(made) / norm(left) / norm(right)
}

func TestScoresAreThoseOfTheWeights(t *testing.T) {
	llm := dial(t, address(t, "float32")) // which runs nothing
	info := must(llm.ModelInfo(background))(t)
	layers, heads := int(info.NLayers), int(info.NHeads)
	early, late := must(llm.HeadWeights(background, 0, 1))(t), must(llm.HeadWeights(background, 1, 2))(t)
	writes := product(t, early.V, early.O, false)
	for kind, reads := range map[transparentllm.CompositionKind][][]float64{
		transparentllm.ComposeQueries: product(t, late.Q, late.K, true),
		transparentllm.ComposeKeys:    product(t, late.K, late.Q, true),
		0:                             product(t, late.K, late.Q, true),
		transparentllm.ComposeValues:  product(t, late.V, late.O, false),
	} {
		scores := must(llm.CompositionScores(background, kind))(t)
		want := fmt.Sprintf("F32 [%d %d %d %d] [layer head later_layer later_head]", layers, heads, layers, heads)
		if got := shapeAndDims(scores); got != want {
			t.Fatalf("%v is %s, not %s", kind, got, want)
		}
		if got, want := must(scores.At(0, 1, 1, 2))(t), score(writes, reads); math.Abs(got-want) > 1e-4 {
			t.Errorf("%v: %v, not %v", kind, got, want)
		}
		if got := must(scores.At(1, 0, 0, 0))(t); !math.IsNaN(got) {
			t.Errorf("%v of an earlier layer: %v", kind, got)
		}
	}
	copying := must(llm.CopyingScores(background, transparentllm.CircuitOV))(t)
	if got, want := shapeAndDims(copying), fmt.Sprintf("F32 [%d %d] [layer head]", layers, heads); got != want {
		t.Errorf("copying is %s, not %s", got, want)
	}
	for _, each := range must(copying.Float64s())(t) {
		if !(each >= -1 && each <= 1) {
			t.Errorf("a copying score is %v", each)
		}
	}
	last := must(llm.CopyingScores(background, 0, transparentllm.Slice("layer", transparentllm.Start(-1))))(t)
	if got, want := must(last.At(0, 0))(t), must(copying.At(layers-1, 0))(t); got != want || last.Shape()[0] != 1 {
		t.Errorf("a slice of %v has %v, not %v", last.Shape(), got, want)
	}
	run(t, llm, "My lord")
	if again := must(llm.HeadWeights(background, 0, 1))(t); string(again.V.Bytes()) != string(early.V.Bytes()) {
		t.Error("after a run the weights are others")
	}
	if err := second(llm.HeadWeights(background, 0, heads)); !errors.Is(err, transparentllm.ErrIndexOutOfRange) {
		t.Errorf("a head that there is not: %v", err)
	}
	if err := second(llm.CopyingScores(background, 9)); !errors.Is(err, transparentllm.ErrInvalidRequest) {
		t.Errorf("a circuit that there is not: %v", err)
	}
	if err := second(llm.CompositionScores(background, 9)); !errors.Is(err, transparentllm.ErrInvalidRequest) {
		t.Errorf("a kind that there is not: %v", err)
	}
	if err := second(llm.CopyingScores(background, 0, transparentllm.Slice("pos"))); !errors.Is(err, transparentllm.ErrInvalidRequest) {
		t.Errorf("an axis that it has not: %v", err)
	}
}

func TestWeightsOfHeadsAreWhatWasAskedFor(t *testing.T) {
	model := &pb.ModelDescription{Digest: digestOf("model"), Info: &pb.ModelInfo{DModel: 4, NLayers: 2, NHeads: 3}}
	info := &pb.ServerInfoResponse{Models: []*pb.ModelDescription{model}, Features: []string{"circuits"}}
	f32 := pb.Dtype_DTYPE_F32
	part := func(name string, first, second uint64) proto.Message {
		dims := []string{"d_model", "d_head"}
		if name == "o" {
			dims = []string{"d_head", "d_model"}
		}
		return message("head_weights."+name, f32, []uint64{first, second}, dims...)
	}
	q, k, v, o := part("q", 4, 2), part("k", 4, 2), part("v", 4, 2), part("o", 2, 4)
	ask := func(answers ...proto.Message) error {
		llm := dial(t, liar{"ServerInfo": {info}, "HeadWeights": answers}.serve(t))
		return second(llm.HeadWeights(background, 0, 0))
	}
	if err := ask(q, k, v, o); err != nil {
		t.Fatal(err)
	}
	for name, answers := range map[string][]proto.Message{
		"nothing":         {},
		"a part missing":  {q, k, v},
		"another order":   {k, q, v, o},
		"a wider model":   {part("q", 5, 2), k, v, o},
		"wider keys":      {q, part("k", 4, 3), v, o},
		"a wider output":  {q, k, v, part("o", 3, 4)},
		"integers":        {message("head_weights.q", pb.Dtype_DTYPE_I32, []uint64{4, 2}, "d_model", "d_head"), k, v, o},
		"another tensor":  {message("copying_scores", f32, []uint64{2, 3}, "layer", "head")},
		"a part too much": {q, k, v, o, o},
	} {
		if err := ask(answers...); !errors.Is(err, transparentllm.ErrInternal) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, shape := range [][]uint64{{2, 2}, {3, 3}, {0, 0}} {
		answer := message("copying_scores", f32, shape, "layer", "head")
		llm := dial(t, liar{"ServerInfo": {info}, "CopyingScores": {answer}}.serve(t))
		if err := second(llm.CopyingScores(background, transparentllm.CircuitOV)); !errors.Is(err, transparentllm.ErrInternal) {
			t.Errorf("%v: %v", shape, err)
		}
	}
	llm := dial(t, liar{"ServerInfo": {&pb.ServerInfoResponse{}}}.serve(t))
	if err := second(llm.CopyingScores(background, transparentllm.CircuitOV)); !errors.Is(err, transparentllm.ErrNotSupported) {
		t.Errorf("an old server: %v", err)
	}
}
