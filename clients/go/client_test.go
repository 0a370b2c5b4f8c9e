package transparentllm_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	transparentllm "transparentllm.dev/go"
)

func shapeAndDims(value *transparentllm.Tensor) string {
	return fmt.Sprint(value.Dtype(), value.Shape(), value.Dims())
}

func TestEveryMethodAnswersWhatItsNameSays(t *testing.T) {
	llm := ran(t)
	info := must(llm.ModelInfo(background))(t)
	tokens := must(llm.Tokens())(t)
	batch, pos := tokens.Shape()[0], tokens.Shape()[1]
	residual := fmt.Sprintf("F32 [%d %d %d] [batch pos d_model]", batch, pos, info.DModel)
	vector := transparentllm.NewVector(make([]float32, info.DModel))
	for name, c := range map[string]struct {
		value *transparentllm.Tensor
		want  string
	}{
		"Tokens":                {tokens, fmt.Sprintf("I64 [%d %d] [batch pos]", batch, pos)},
		"Mask":                  {must(llm.Mask())(t), fmt.Sprintf("BOOL [%d %d] [batch pos]", batch, pos)},
		"Logits":                {must(llm.Logits(background))(t), fmt.Sprintf("F32 [%d %d %d] [batch pos d_vocab]", batch, pos, info.DVocab)},
		"Unembed":               {must(llm.Unembed(background, vector, true))(t), fmt.Sprintf("F32 [%d] [vocab]", info.DVocab)},
		"ResidualIn":            {must(llm.ResidualIn(background, 0))(t), residual},
		"ResidualAfterAttn":     {must(llm.ResidualAfterAttn(background, 0))(t), residual},
		"ResidualOut":           {must(llm.ResidualOut(background, 0))(t), residual},
		"FfnOut":                {must(llm.FfnOut(background, 0))(t), residual},
		"DecomposedFfnOut":      {must(llm.DecomposedFfnOut(background, 0, 0, 0))(t), fmt.Sprintf("F32 [512 %d] [hidden d_model]", info.DModel)},
		"NeuronActivations":     {must(llm.NeuronActivations(background, 0, 0, 0))(t), "F32 [512] [d_ffn]"},
		"NeuronOutput":          {must(llm.NeuronOutput(background, 0, 0))(t), fmt.Sprintf("F32 [%d] [d_model]", info.DModel)},
		"AttentionMatrix":       {must(llm.AttentionMatrix(background, 0, 0, 0))(t), fmt.Sprintf("F32 [%d %d] [query_pos key_pos]", pos, pos)},
		"AttentionOutput":       {must(llm.AttentionOutput(background, 0, 0, 0))(t), fmt.Sprintf("F32 [%d] [d_model]", info.DModel)},
		"AttentionOutputOfHead": {must(llm.AttentionOutputOfHead(background, 0, 0, 0, 0))(t), fmt.Sprintf("F32 [%d] [d_model]", info.DModel)},
		"DecomposedAttn":        {must(llm.DecomposedAttn(background, 0, 0))(t), fmt.Sprintf("F32 [%d %d %d %d] [target source head d_model]", pos, pos, info.NHeads, info.DModel)},
	} {
		if got := shapeAndDims(c.value); got != c.want {
			t.Errorf("%s is %s, not %s", name, got, c.want)
		}
	}
	if got := must(llm.BatchSize())(t); got != 2 {
		t.Errorf("%d rows", got)
	}
	if !must(llm.IsServing(background))(t) {
		t.Error("the server does not serve")
	}
	if got := must(llm.ServerInfo(background))(t); len(got.Models) == 0 || got.Models[0].Info.Name != info.Name {
		t.Errorf("serves %v", got.Models)
	}
	texts := must(llm.TokensToStrings(background, must(tokens.Int64s())(t)[:2]))(t)
	if len(texts) != 2 || texts[0] == "" {
		t.Errorf("tokens are %q", texts)
	}
}

func TestTheLastLayerUnembedsToTheLogits(t *testing.T) {
	llm := ran(t)
	info := must(llm.ModelInfo(background))(t)
	last := []transparentllm.ReadOption{transparentllm.Slice("batch", transparentllm.Stop(1)), transparentllm.Slice("pos", transparentllm.Start(-1))}
	residual := must(llm.ResidualOut(background, int(info.NLayers)-1, last...))(t)
	vector := transparentllm.NewVector(must(residual.Float32s())(t))
	got := must(must(llm.Unembed(background, vector, true))(t).Float32s())(t)
	for i, want := range must(must(llm.Logits(background, last...))(t).Float32s())(t) {
		if math.Abs(float64(got[i]-want)) > 1e-3 {
			t.Fatalf("token %d has %v, not %v", i, got[i], want)
		}
	}
}

func TestNothingIsReadBeforeARun(t *testing.T) {
	llm := dial(t, address(t, "float32"))
	for name, err := range map[string]error{
		"Logits":    second(llm.Logits(background)),
		"Tokens":    second(llm.Tokens()),
		"BatchSize": second(llm.BatchSize()),
		"RunID":     second(llm.RunID()),
		"Fetch":     second(llm.Fetch(background, []transparentllm.Read{transparentllm.Logits()})),
		"Open":      second(llm.Open(background, transparentllm.Logits())),
		"Release":   llm.Release(background),
	} {
		var failed *transparentllm.Error
		if !errors.As(err, &failed) || failed.Class != transparentllm.ErrNotRun || failed.Reason != "NOT_RUN" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestArgumentsThatCanNeverBeRight(t *testing.T) {
	llm := ran(t)
	slice, step := transparentllm.Slice, transparentllm.Step
	for reason, c := range map[string]struct {
		err   error
		class *transparentllm.Class
	}{
		"INVALID_SLICE axis":        {second(llm.Logits(background, slice("nonsense"))), transparentllm.ErrInvalidRequest},
		"INVALID_SLICE step":        {second(llm.Logits(background, slice("pos", step(0)))), transparentllm.ErrInvalidRequest},
		"INVALID_SLICE twice":       {second(llm.Logits(background, slice("pos"), slice("pos"))), transparentllm.ErrInvalidRequest},
		"INVALID_SLICE local":       {second(llm.Tokens(slice("nonsense"))), transparentllm.ErrInvalidRequest},
		"INVALID_DTYPE":             {second(llm.Logits(background, transparentllm.WireDtype(transparentllm.I64))), transparentllm.ErrInvalidRequest},
		"INVALID_DTYPE none":        {second(llm.Logits(background, transparentllm.WireDtype(0))), transparentllm.ErrInvalidRequest},
		"INVALID_SHAPE":             {second(llm.Unembed(background, transparentllm.NewVector([]float32{1}), true)), transparentllm.ErrInvalidRequest},
		"INDEX_OUT_OF_RANGE":        {second(llm.ResidualIn(background, 99)), transparentllm.ErrIndexOutOfRange},
		"INDEX_OUT_OF_RANGE minus":  {second(llm.DecomposedFfnOut(background, 0, -99, 0)), transparentllm.ErrIndexOutOfRange},
		"INDEX_OUT_OF_RANGE int32":  {second(llm.ResidualIn(background, 1<<31)), transparentllm.ErrIndexOutOfRange},
		"INDEX_OUT_OF_RANGE neuron": {second(llm.NeuronOutput(background, 0, 1<<20)), transparentllm.ErrIndexOutOfRange},
		"EMPTY_INPUT":               {llm.Run(background, nil), transparentllm.ErrInvalidRequest},
		"UNKNOWN_TOKEN":             {llm.RunTokens(background, [][]int64{{-1}}), transparentllm.ErrInvalidRequest},
		"UNKNOWN_TOKEN large":       {llm.RunTokens(background, [][]int64{{1 << 40}}), transparentllm.ErrInvalidRequest},
		"UNKNOWN_TOKEN of server":   {second(llm.TokensToStrings(background, []int64{1 << 20})), transparentllm.ErrInvalidRequest},
		"TOO_LONG":                  {llm.RunTokens(background, [][]int64{make([]int64, 5000)}), transparentllm.ErrTooLarge},
		"INVALID_REQUEST text":      {llm.Run(background, []string{"\xFF"}), transparentllm.ErrInvalidRequest},
		"INVALID_REQUEST read":      {second(transparentllm.NewRead("model_info")), transparentllm.ErrInvalidRequest},
		"INVALID_REQUEST no read":   {second(llm.Fetch(background, make([]transparentllm.Read, 1))), transparentllm.ErrInvalidRequest},
		"INVALID_REQUEST open":      {second(llm.Open(background, transparentllm.Read{})), transparentllm.ErrInvalidRequest},
	} {
		var failed *transparentllm.Error
		if !errors.As(c.err, &failed) || !errors.Is(failed, c.class) {
			t.Errorf("%s: %v", reason, c.err)
			continue
		}
		if want := reason[:least(len(reason), len(failed.Reason))]; failed.Reason != want {
			t.Errorf("%s: reason %s", reason, failed.Reason)
		}
	}
	if _, err := llm.Logits(background); err != nil {
		t.Errorf("the current run is gone: %v", err)
	}
}

func TestOptionsThatCanNeverBeRight(t *testing.T) {
	for name, options := range map[string][]transparentllm.Option{
		"a token of two lines": {transparentllm.WithToken("secret\n")},
		"a token not of ASCII": {transparentllm.WithToken("geheimnisträger")},
		"a model not of UTF-8": {transparentllm.WithModel("\xFF")},
		"no bytes":             {transparentllm.WithMaxBytes(0)},
		"no time":              {transparentllm.WithTimeout(0)},
	} {
		if _, err := transparentllm.Dial("localhost:1", options...); !errors.Is(err, transparentllm.ErrInvalidRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := transparentllm.Dial("http://box"); err == nil || !strings.Contains(err.Error(), "write HOST:PORT") {
		t.Errorf("a URL: %v", err)
	}
	if _, err := transparentllm.Dial(""); !errors.Is(err, transparentllm.ErrInvalidRequest) {
		t.Errorf("no target: %v", err)
	}
}

func TestAPartIsThatPartOfTheWhole(t *testing.T) {
	llm := ran(t)
	whole := must(llm.ResidualOut(background, 1))(t)
	part := must(llm.ResidualOut(background, 1, transparentllm.Slice("pos", transparentllm.Start(-3), transparentllm.Step(2)),
		transparentllm.Slice("d_model", transparentllm.Stop(4))))(t)
	if got := fmt.Sprint(part.Shape()); got != "[2 2 4]" {
		t.Fatalf("the part is %s", got)
	}
	first := whole.Shape()[1] - 3
	for index := 0; index < part.Len(); index++ {
		b, p, d := index/8, index/4%2, index%4
		if got, want := must(part.At(b, p, d))(t), must(whole.At(b, first+2*p, d))(t); got != want {
			t.Errorf("[%d %d %d] is %v, not %v", b, p, d, got, want)
		}
	}
	tokens := must(llm.Tokens(transparentllm.Slice("batch", transparentllm.Start(1)), transparentllm.Slice("pos", transparentllm.Stop(2))))(t)
	all := must(llm.Tokens())(t)
	if got, want := must(tokens.At(0, 1))(t), must(all.At(1, 1))(t); tokens.Len() != 2 || got != want {
		t.Errorf("tokens are %v, not %v", got, want)
	}
	remote := must(llm.Fetch(background, []transparentllm.Read{transparentllm.Tokens()}))(t)[0]
	if string(remote.Bytes()) != string(all.Bytes()) {
		t.Error("the server has other tokens than its answer to Run")
	}
}

func TestASmallerDtypeOnTheWire(t *testing.T) {
	llm := ran(t)
	exact := must(must(llm.FfnOut(background, 0))(t).Float32s())(t)
	for dtype, bound := range map[transparentllm.Dtype]float64{transparentllm.BF16: 1.0 / 128, transparentllm.F16: 1.0 / 1024} {
		value := must(llm.FfnOut(background, 0, transparentllm.WireDtype(dtype)))(t)
		if value.Dtype() != dtype || len(value.Bytes()) != 2*len(exact) {
			t.Fatalf("came as %v in %d bytes", value.Dtype(), len(value.Bytes()))
		}
		for i, got := range must(value.Float32s())(t) {
			if math.Abs(float64(got-exact[i])) > bound*math.Abs(float64(exact[i]))+1e-7 {
				t.Fatalf("%v: %v, not %v", dtype, got, exact[i])
			}
		}
	}
	if wide := must(llm.FfnOut(background, 0, transparentllm.WireDtype(transparentllm.F64)))(t); wide.Len() != len(exact) {
		t.Errorf("%d elements in F64", wide.Len())
	}
}

func TestFetchGivesWhatTheMethodsGive(t *testing.T) {
	llm := ran(t)
	values := must(llm.Fetch(background, []transparentllm.Read{transparentllm.ResidualIn(0), transparentllm.DecomposedFfnOut(1, 0, 1),
		transparentllm.DecomposedAttn(0, 1), transparentllm.ResidualIn(0), transparentllm.Logits()}))(t)
	for i, want := range []*transparentllm.Tensor{must(llm.ResidualIn(background, 0))(t), must(llm.DecomposedFfnOut(background, 1, 0, 1))(t),
		must(llm.DecomposedAttn(background, 0, 1))(t), must(llm.ResidualIn(background, 0))(t), must(llm.Logits(background))(t)} {
		if shapeAndDims(values[i]) != shapeAndDims(want) || string(values[i].Bytes()) != string(want.Bytes()) {
			t.Errorf("value %d is another one: %s", i, shapeAndDims(values[i]))
		}
	}
	if none, err := llm.Fetch(background, nil); len(none) != 0 || err != nil {
		t.Errorf("of nothing: %v, %v", none, err)
	}
}

func TestACopyHasARunOfItsOwn(t *testing.T) {
	llm := ran(t)
	before := must(llm.RunID())(t)
	twin := llm.Copy()
	if got := must(twin.RunID())(t); got != before {
		t.Error("a copy begins with another run")
	}
	run(t, twin, "Another line of text")
	if must(llm.RunID())(t) != before || must(twin.RunID())(t) == before {
		t.Error("the runs of a client and its copy are one")
	}
}

func TestGoroutinesShareAConnection(t *testing.T) {
	llm := ran(t)
	want := must(llm.ResidualOut(background, 2))(t)
	var group sync.WaitGroup
	for i := 0; i < 8; i++ {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			own := llm.Copy()
			if err := own.Run(background, []string{fmt.Sprint("Line ", i)}); err != nil {
				t.Error(err)
			}
			if _, err := own.DecomposedFfnOut(background, 0, i%4, 0); err != nil {
				t.Error(err)
			}
			if got, err := llm.ResidualOut(background, 2); err != nil || string(got.Bytes()) != string(want.Bytes()) {
				t.Errorf("%v, %v", got, err)
			}
			if err := llm.Release(background); err != nil {
				t.Error(err)
			}
		}(i)
	}
	group.Wait()
}

func TestAReleasedRunIsMadeAgain(t *testing.T) {
	llm := ran(t)
	want := must(llm.AttentionMatrix(background, 0, 0, 0))(t)
	if err := llm.Release(background); err != nil {
		t.Fatal(err)
	}
	if got := must(llm.AttentionMatrix(background, 0, 0, 0))(t); string(got.Bytes()) != string(want.Bytes()) {
		t.Error("another value")
	}
	strict := ran(t, transparentllm.WithoutRerun())
	if err := strict.Release(background); err != nil {
		t.Fatal(err)
	}
	if _, err := strict.Logits(background); !errors.Is(err, transparentllm.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestWhatIsTooLargeForTheClient(t *testing.T) {
	llm := ran(t, transparentllm.WithMaxBytes(40000))
	for name, err := range map[string]error{
		"a value":     second(llm.Logits(background)),
		"a product":   second(llm.DecomposedAttn(background, 0, 0)),
		"neurons":     second(llm.DecomposedFfnOut(background, 0, 0, 0)),
		"a reader":    second(llm.Open(background, transparentllm.Logits())),
		"one of many": second(llm.Fetch(background, []transparentllm.Read{transparentllm.AttentionMatrix(0, 0, 0), transparentllm.Logits()})),
	} {
		var failed *transparentllm.Error
		if !errors.As(err, &failed) || failed.Class != transparentllm.ErrTooLarge || failed.Metadata["allowed"] != "40000" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := llm.Logits(background, transparentllm.Slice("pos", transparentllm.Start(-1))); err != nil {
		t.Error(err)
	}
}

func TestACancelledContextEndsCallsAndLeavesTheClientUsable(t *testing.T) {
	llm := ran(t)
	ctx, cancel := context.WithCancel(background)
	cancel()
	for name, err := range map[string]error{
		"Logits":  second(llm.Logits(ctx)),
		"Run":     llm.Run(ctx, []string{"x"}),
		"Serving": second(llm.IsServing(ctx)),
		"Open":    second(llm.Open(ctx, transparentllm.Logits())),
	} {
		if !errors.Is(err, transparentllm.ErrCancelled) || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := llm.Logits(background); err != nil {
		t.Error(err)
	}
}

func TestADeadlineIsThatOfTheContextOrOfTheClient(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // connections are made, and nothing is ever said
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithTimeout(background, 50*time.Millisecond)
	defer cancel()
	if err := dial(t, silent.Addr().String()).Run(ctx, []string{"x"}); !errors.Is(err, transparentllm.ErrDeadline) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("of the context: %v", err)
	}
	short := dial(t, silent.Addr().String(), transparentllm.WithTimeout(50*time.Millisecond))
	if err := short.Run(background, []string{"x"}); !errors.Is(err, transparentllm.ErrDeadline) {
		t.Errorf("of the client: %v", err)
	}
}

func TestWhereNobodyListens(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	target := closed.Addr().String()
	closed.Close()
	llm := dial(t, target)
	for name, err := range map[string]error{
		"Run":          llm.Run(background, []string{"x"}),
		"NeuronOutput": second(llm.NeuronOutput(background, 0, 0)),
	} {
		var failed *transparentllm.Error
		if !errors.As(err, &failed) || failed.Class != transparentllm.ErrUnavailable || failed.Metadata["target"] != target {
			t.Errorf("%s: %v", name, err)
		}
	}
	if serves, err := llm.IsServing(background); serves || err != nil {
		t.Errorf("IsServing: %v, %v", serves, err)
	}
}

func TestAClosedClientRefusesCalls(t *testing.T) {
	llm := ran(t)
	twin := llm.Copy()
	if err := llm.Close(); err != nil {
		t.Error(err)
	}
	if err := twin.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	for name, err := range map[string]error{
		"Run":       llm.Run(background, []string{"x"}),
		"Logits":    second(twin.Logits(background)),
		"Open":      second(twin.Open(background, transparentllm.Logits())),
		"IsServing": second(llm.IsServing(background)),
	} {
		if !errors.Is(err, transparentllm.ErrInvalidRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
