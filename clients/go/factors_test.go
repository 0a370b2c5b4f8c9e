package transparentllm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"testing"

	"transparentllm.dev/go/internal/half"
	"transparentllm.dev/go/internal/wire"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

const unlimited = wire.Addressable

// numbers makes a tensor of float values in any floating dtype.
func numbers(dtype Dtype, shape []int, values ...float32) *Tensor {
	made := &Tensor{dtype: dtype, shape: shape, data: make([]byte, dtype.Size()*len(values))}
	encode(dtype, made.data, values)
	return made
}

func pairs(values ...int64) *Tensor {
	made := &Tensor{dtype: I64, shape: []int{len(values) / 2, 2}}
	for _, value := range values {
		made.data = binary.LittleEndian.AppendUint64(made.data, uint64(value))
	}
	return made
}

func said(tensor *Tensor, err error) string {
	if err != nil {
		return err.Error()
	}
	values, err := tensor.Float64s()
	return fmt.Sprint(tensor.dtype, tensor.shape, tensor.dims, values, err)
}

func TestAttnIsPatternTimesValueOut(t *testing.T) {
	pattern := numbers(F32, []int{2, 1, 2}, 1, 2, 3, 4)                 // [head target source]
	offered := numbers(F32, []int{2, 2, 2}, 1, 10, 2, 20, 3, 30, 4, 40) // [source head d_model]
	want := "F32 [1 2 2 2] [target source head d_model] [1 10 6 60 6 60 16 160] <nil>"
	if got := said(attnProduct(context.Background(), arrival{"pattern": pattern, "value_out": offered}, unlimited)); got != want {
		t.Errorf("got %s", got)
	}
	want = "F32 [1 2 2 2] [target source head d_model] [2 5 12 30 12 30 32 80] <nil>"
	if got := said(attnProduct(context.Background(), arrival{"pattern": pattern, "value_out": offered, "gain": numbers(F32, []int{1, 2}, 2, 0.5)}, unlimited)); got != want {
		t.Errorf("with a gain of each target %s", got)
	}
	want = "F32 [1 2 2 2] [target source head d_model] [2 20 12 120 12 120 32 320] <nil>"
	if got := said(attnProduct(context.Background(), arrival{"pattern": pattern, "value_out": offered, "gain": numbers(F32, nil, 2)}, unlimited)); got != want {
		t.Errorf("with a gain that is a scalar %s", got)
	}
}

func TestProductsAreTakenInSingleAndRoundedOnce(t *testing.T) {
	weight, value, gain := float32(1.0078125), float32(1.00390625), float32(3)
	for dtype, round := range map[Dtype]func(float32) float32{
		BF16: func(x float32) float32 { return half.FromBF16(half.ToBF16(x)) },
		F16:  func(x float32) float32 { return half.FromF16(half.ToF16(x)) },
		F32:  func(x float32) float32 { return x },
		F64:  func(x float32) float32 { return x },
	} {
		came := arrival{"pattern": numbers(dtype, []int{1, 1, 1}, weight), "value_out": numbers(F32, []int{1, 1, 1}, value),
			"gain": numbers(F32, nil, gain)}
		got, err := attnProduct(context.Background(), came, unlimited)
		if err != nil {
			t.Fatal(err)
		}
		product := float32(weight * value)
		once, twice := round(float32(product*gain)), round(float32(round(product)*gain))
		if got.float32(0) != once || got.dtype != dtype {
			t.Errorf("%v: %v, not %v", dtype, got.float32(0), once)
		}
		if dtype == BF16 && once == twice {
			t.Error("these numbers do not tell once from twice")
		}
	}
	// Left to right: (1e30 * 1e30) * 0 is not 1e30 * (1e30 * 0).
	came := arrival{"pattern": numbers(F32, []int{1, 1, 1}, 1e30), "value_out": numbers(F32, []int{1, 1, 1}, 1e30), "gain": numbers(F32, nil, 0)}
	if got, _ := attnProduct(context.Background(), came, unlimited); !math.IsNaN(float64(got.float32(0))) {
		t.Errorf("from right to left: %v", got.float32(0))
	}
}

func TestFfnIsActivationsTimesOutputs(t *testing.T) {
	outputs := numbers(F32, []int{4, 2}, 1, 2, 3, 4, 5, 6, 7, 8)
	want := "F32 [4 2] [hidden d_model] [1 2 6 8 15 18 28 32] <nil>"
	if got := said(ffnProduct(context.Background(), arrival{"activations": numbers(F32, []int{4}, 1, 2, 3, 4)}, outputs, unlimited)); got != want {
		t.Errorf("got %s", got)
	}
	spanned := arrival{"activations": numbers(F32, []int{2}, 2, 3), "spans": pairs(3, 4, 0, 1), "gain": numbers(F32, []int{2}, 10, -1)}
	want = "F32 [4 2] [hidden d_model] [30 -6 0 0 0 0 140 -16] <nil>"
	if got := said(ffnProduct(context.Background(), spanned, outputs, unlimited)); got != want {
		t.Errorf("with spans %s", got)
	}
	none := arrival{"activations": numbers(BF16, []int{0}), "spans": pairs()}
	want = "BF16 [4 2] [hidden d_model] [0 0 0 0 0 0 0 0] <nil>"
	if got := said(ffnProduct(context.Background(), none, outputs, unlimited)); got != want {
		t.Errorf("without a span %s", got)
	}
}

func TestFactorsThatContradictEachOther(t *testing.T) {
	pattern, offered := numbers(F32, []int{2, 1, 2}, 1, 2, 3, 4), numbers(F32, []int{2, 2, 1}, 1, 2, 3, 4)
	for name, came := range map[string]arrival{
		"no value_out":            {"pattern": pattern},
		"an unknown one":          {"pattern": pattern, "value_out": offered, "more": offered},
		"a flat pattern":          {"pattern": numbers(F32, []int{4}, 1, 2, 3, 4), "value_out": offered},
		"a pattern of integers":   {"pattern": &Tensor{I32, []int{2, 1, 2}, nil, make([]byte, 16)}, "value_out": offered},
		"other sources":           {"pattern": pattern, "value_out": numbers(F32, []int{1, 2, 2}, 1, 2, 3, 4)},
		"value_out in BF16":       {"pattern": pattern, "value_out": numbers(BF16, []int{2, 2, 1}, 1, 2, 3, 4)},
		"a gain of other targets": {"pattern": pattern, "value_out": offered, "gain": numbers(F32, []int{2, 1}, 1, 2)},
		"a gain of one axis":      {"pattern": pattern, "value_out": offered, "gain": numbers(F32, []int{1}, 1)},
		"a gain in F16":           {"pattern": pattern, "value_out": offered, "gain": numbers(F16, nil, 1)},
	} {
		if got, err := attnProduct(context.Background(), came, unlimited); !errors.Is(err, ErrInternal) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	outputs, two := numbers(F32, []int{3, 1}, 1, 2, 3), numbers(F32, []int{2}, 1, 2)
	for name, came := range map[string]arrival{
		"too few activations":     {"activations": two},
		"a span too long":         {"activations": two, "spans": pairs(2, 4)},
		"a span from below":       {"activations": two, "spans": pairs(-1, 1)},
		"a span backwards":        {"activations": two, "spans": pairs(2, 1, 0, 3)},
		"spans that overlap":      {"activations": two, "spans": pairs(1, 2, 1, 2)},
		"spans of other length":   {"activations": two, "spans": pairs(0, 1)},
		"more spans than neurons": {"activations": two, "spans": pairs(0, 0, 0, 0, 0, 0, 0, 2)},
		"spans in a row":          {"activations": two, "spans": &Tensor{I64, []int{2}, nil, make([]byte, 16)}},
		"an unknown one":          {"activations": two, "scale": two},
		"a gain too long":         {"activations": numbers(F32, []int{3}, 1, 2, 3), "gain": two},
	} {
		if got, err := ffnProduct(context.Background(), came, outputs, unlimited); !errors.Is(err, ErrInternal) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestProductsWithoutElementsTakeNoTime(t *testing.T) {
	long := 1 << 31
	for _, c := range []struct{ pattern, offered []int }{
		{[]int{0, long, long}, []int{long, 0, 1}},
		{[]int{1, 1, 0}, []int{0, 1, long << 20}},
		{[]int{1, 0, 1}, []int{1, 1, 0}},
	} {
		got, err := attnProduct(context.Background(), arrival{"pattern": numbers(F32, c.pattern), "value_out": numbers(F32, c.offered)}, unlimited)
		if err != nil || got.Len() != 0 {
			t.Errorf("%v: %v, %v", c.pattern, got, err)
		}
	}
}

func TestAProductIsEndedWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	came := arrival{"pattern": numbers(F32, []int{1, 1, 1}, 1), "value_out": numbers(F32, []int{1, 1, 1}, 1)}
	llm := &Client{shared: &shared{calls: &calls{config: config{maxBytes: unlimited}}}}
	if got, err := llm.value(ctx, nil, readOf("decomposed_attn"), true, came); !errors.Is(err, ErrCancelled) {
		t.Errorf("attention: %v, %v", got, err)
	}
	llm.models = map[string]*pb.ModelDescription{"digest": {Digest: "digest", DFfn: []uint32{1}}}
	llm.weights = newWeights(&calls{config: config{weightsBytes: 4}})
	llm.weights.kept.keep(layerKey{"digest", 0}, numbers(F32, []int{1, 1}, 1), 4)
	came, held := arrival{"activations": numbers(F32, []int{1}, 1)}, &run{digest: "digest"}
	if got, err := llm.value(ctx, held, readOf("decomposed_ffn_out", 0, 0, 0), true, came); !errors.Is(err, ErrCancelled) {
		t.Errorf("neurons: %v, %v", got, err)
	}
}

func TestAProductIsRefusedBeforeItsMemoryIsTaken(t *testing.T) {
	pattern, offered := numbers(BF16, []int{2, 1, 2}, 1, 2, 3, 4), numbers(F32, []int{2, 2, 1}, 1, 2, 3, 4)
	_, err := attnProduct(context.Background(), arrival{"pattern": pattern, "value_out": offered}, 7)
	var failed *Error
	if !errors.As(err, &failed) || failed.Class != ErrTooLarge || failed.Metadata["needed"] != "8" || failed.Metadata["allowed"] != "7" {
		t.Errorf("got %v", err)
	}
}

func TestWithoutALimitAProductTakesHalfOfTheMemory(t *testing.T) {
	made, err := configured([]string{"here:1"}, nil)
	if err != nil || made.maxBytes != halfOfMemory() || made.maxBytes < 1<<20 || made.maxBytes >= wire.Addressable {
		t.Fatalf("%d bytes, %v", made.maxBytes, err)
	}
	long := 1 << 22
	pattern, offered := numbers(F32, []int{1, long, 1}, make([]float32, long)...), numbers(F32, []int{1, 1, long}, make([]float32, long)...)
	var failed *Error
	_, err = attnProduct(context.Background(), arrival{"pattern": pattern, "value_out": offered}, made.maxBytes)
	if !errors.As(err, &failed) || failed.Class != ErrTooLarge || failed.Metadata["allowed"] != fmt.Sprint(made.maxBytes) {
		t.Errorf("got %v", err)
	}
}

func TestAProductOfMoreThanAProcessCanAddressIsTooLarge(t *testing.T) {
	long := 1 << 23
	pattern, offered := numbers(F32, []int{1, long, 1}, make([]float32, long)...), numbers(F32, []int{1, 1, long}, make([]float32, long)...)
	got, err := attnProduct(context.Background(), arrival{"pattern": pattern, "value_out": offered}, unlimited)
	var failed *Error
	if !errors.As(err, &failed) || failed.Class != ErrTooLarge || failed.Metadata["needed"] != "281474976710656" {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestPartsOfAnAxisAreThoseOfPython(t *testing.T) {
	for _, c := range []struct {
		bounds []Bound
		want   string
	}{
		{nil, "[0 1 2 3 4]"},
		{[]Bound{Start(-1)}, "[4]"},
		{[]Bound{Stop(-1)}, "[0 1 2 3]"},
		{[]Bound{Start(1), Stop(4), Step(2)}, "[1 3]"},
		{[]Bound{Start(-99), Stop(99)}, "[0 1 2 3 4]"},
		{[]Bound{Start(3), Stop(2)}, "[]"},
		{[]Bound{Stop(0)}, "[]"},
		{[]Bound{Start(99)}, "[]"},
		{[]Bound{Start(1), Step(math.MaxInt64)}, "[1]"},
		{[]Bound{Start(math.MinInt64), Stop(math.MaxInt64), Step(3)}, "[0 3]"},
	} {
		part := &pb.AxisSlice{}
		for _, bound := range c.bounds {
			bound(part)
		}
		if got := fmt.Sprint(indicesOf(part, 5)); got != c.want {
			t.Errorf("%v became %s, not %s", part, got, c.want)
		}
	}
}

func TestValuesAreThoseThatWereAskedFor(t *testing.T) {
	one := wire.Tensor{Header: &pb.TensorHeader{Name: "logits tokens", Dtype: pb.Dtype_DTYPE_F32}, Data: make([]byte, 4)}
	if got, err := grouped([]*method{methods["logits"], methods["tokens"]}, []wire.Tensor{one}); !errors.Is(err, ErrInternal) {
		t.Errorf("one for two: %v, %v", got, err)
	}
}

func TestFactorsThatWereNotAskedFor(t *testing.T) {
	llm := &Client{shared: &shared{calls: &calls{config: config{maxBytes: unlimited}}}}
	came := arrival{"activations": numbers(F32, []int{1}, 1)}
	if got, err := llm.value(context.Background(), nil, readOf("decomposed_ffn_out"), false, came); !errors.Is(err, ErrInternal) {
		t.Errorf("%v, %v", got, err)
	}
}
