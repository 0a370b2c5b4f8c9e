package transparentllm_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	transparentllm "transparentllm.dev/go"
)

// large runs much on a client: its logits take some MB.
func large(t *testing.T, llm *transparentllm.Client) {
	t.Helper()
	rows := make([][]int64, 8)
	for i := range rows {
		for p := int64(0); p < 200; p++ {
			rows[i] = append(rows[i], 1+(p+int64(i))%900)
		}
	}
	if err := llm.RunTokens(background, rows); err != nil {
		t.Fatal(err)
	}
}

// direct is the value as it comes without an interruption.
func direct(t *testing.T) []byte {
	t.Helper()
	llm := dial(t, address(t, "float32"))
	large(t, llm)
	return must(llm.Logits(background))(t).Bytes()
}

func TestAnInterruptedValueIsTakenUpWhereItBrokeOff(t *testing.T) {
	want := direct(t)
	proxy := proxied(t, address(t, "float32"))
	llm := dial(t, proxy.address())
	large(t, llm)
	proxy.interruptNext(1<<20, 3<<20)
	var reports []int64
	got := must(llm.Logits(background, transparentllm.Progress(func(received, total int64) { reports = append(reports, received) })))(t)
	if !bytes.Equal(got.Bytes(), want) || proxy.interruptions() != 2 {
		t.Errorf("another value, after %d interruptions", proxy.interruptions())
	}
	for i := 1; i < len(reports); i++ {
		if reports[i] < reports[i-1] {
			t.Errorf("progress went back from %d to %d", reports[i-1], reports[i])
		}
	}
	if last := reports[len(reports)-1]; last != int64(len(want)) {
		t.Errorf("progress ended at %d of %d", last, len(want))
	}
}

func TestAValueThatAProxyResetsIsTakenUpWhereItBrokeOff(t *testing.T) {
	want := direct(t)
	proxy := resetBetween(t, address(t, "float32"))
	llm := dial(t, proxy.listener.Addr().String())
	large(t, llm)
	for _, frames := range []int64{2, 100, 101, 250} { // most of them within a message
		proxy.left.Store(frames)
		if got, err := llm.Logits(background); err != nil || !bytes.Equal(got.Bytes(), want) {
			t.Errorf("after %d frames: %v", frames, err)
		}
		if proxy.left.Load() > 0 {
			t.Errorf("no reset: %d frames too few", proxy.left.Load())
		}
	}
}

func TestAnInterruptedFetchIsTakenUpWhereItBrokeOff(t *testing.T) {
	proxy := proxied(t, address(t, "float32"))
	llm := dial(t, proxy.address())
	large(t, llm)
	reads := []transparentllm.Read{transparentllm.ResidualIn(0), transparentllm.DecomposedAttn(0, 1), transparentllm.FfnOut(3)}
	want := must(llm.Fetch(background, reads))(t)
	proxy.interruptNext(300<<10, 900<<10)
	for i, got := range must(llm.Fetch(background, reads))(t) {
		if !bytes.Equal(got.Bytes(), want[i].Bytes()) {
			t.Errorf("value %d is another one", i)
		}
	}
	if proxy.interruptions() != 2 {
		t.Errorf("%d interruptions", proxy.interruptions())
	}
}

func TestAnInterruptedRunIsAskedForAgain(t *testing.T) {
	proxy := proxied(t, address(t, "float32"))
	llm := dial(t, proxy.address())
	large(t, llm)
	proxy.interruptNext(2000)
	run(t, llm, "My lord", "What say you?")
	large(t, llm)
	if proxy.interruptions() != 1 {
		t.Errorf("%d interruptions", proxy.interruptions())
	}
}

func TestAConnectionThatIsInterruptedAtItsBeginning(t *testing.T) {
	proxy := proxied(t, address(t, "float32"), 5, 5)
	run(t, dial(t, proxy.address()), "My lord")
	if proxy.interruptions() != 2 {
		t.Errorf("%d interruptions", proxy.interruptions())
	}
}

func TestAReaderGivesTheElementsAsTheyCome(t *testing.T) {
	want := direct(t)
	proxy := proxied(t, address(t, "float32"))
	llm := dial(t, proxy.address())
	large(t, llm)
	proxy.interruptNext(1<<20, 3<<20)
	reader := must(llm.Open(background, transparentllm.Logits()))(t)
	head := reader.Header()
	if head.Name != "logits" || head.Dtype != transparentllm.F32 || head.TotalBytes != int64(len(want)) || len(head.Shape) != 3 || head.Dims[2] != "d_vocab" {
		t.Errorf("the header is %+v", head)
	}
	got := &bytes.Buffer{}
	if count, err := io.Copy(got, reader); err != nil || count != head.TotalBytes || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%d bytes, %v, the same: %v", count, err, bytes.Equal(got.Bytes(), want))
	}
	if proxy.interruptions() != 2 {
		t.Errorf("%d interruptions", proxy.interruptions())
	}
	if _, err := reader.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
	if err := reader.Close(); err != nil {
		t.Error(err)
	}
}

func TestAReaderThatIsLeftEarly(t *testing.T) {
	llm := dial(t, address(t, "float32"))
	large(t, llm)
	reader := must(llm.Open(background, transparentllm.Logits()))(t)
	if err := reader.Close(); err != nil {
		t.Error(err)
	}
	if _, err := reader.Read(make([]byte, 1)); !errors.Is(err, transparentllm.ErrInvalidRequest) {
		t.Errorf("after Close: %v", err)
	}
	ctx, cancel := context.WithCancel(background)
	reader = must(llm.Open(ctx, transparentllm.Logits()))(t)
	defer reader.Close()
	cancel()
	if _, err := io.Copy(io.Discard, reader); !errors.Is(err, transparentllm.ErrCancelled) {
		t.Errorf("after the cancellation: %v", err)
	}
	must(llm.Logits(background))(t)
}

func TestAReaderOfAPartInASmallerDtype(t *testing.T) {
	llm := ran(t)
	options := []transparentllm.ReadOption{transparentllm.Slice("pos", transparentllm.Start(-1)), transparentllm.WireDtype(transparentllm.BF16)}
	reader := must(llm.Open(background, transparentllm.ResidualOut(1), options...))(t)
	defer reader.Close()
	got, want := must(io.ReadAll(reader))(t), must(llm.ResidualOut(background, 1, options...))(t)
	if !bytes.Equal(got, want.Bytes()) || reader.Header().Dtype != transparentllm.BF16 {
		t.Error("another value")
	}
}

// A reader always asks for the value itself, the methods for its factors: both must have the same bits.
func TestProductsHaveTheBitsOfTheServers(t *testing.T) {
	for _, dtype := range []string{"float32", "bfloat16", "float16"} {
		llm := dial(t, address(t, dtype))
		run(t, llm, "My lord, the king of France is dead", "What say you?")
		for layer := 0; layer < 4; layer++ {
			for name, c := range map[string]struct {
				read  transparentllm.Read
				value *transparentllm.Tensor
			}{
				"attention": {transparentllm.DecomposedAttn(1, layer), must(llm.DecomposedAttn(background, 1, layer))(t)},
				"neurons":   {transparentllm.DecomposedFfnOut(0, layer, 3), must(llm.DecomposedFfnOut(background, 0, layer, 3))(t)},
			} {
				reader := must(llm.Open(background, c.read))(t)
				dense := must(io.ReadAll(reader))(t)
				reader.Close()
				if !bytes.Equal(dense, c.value.Bytes()) {
					t.Errorf("%s of layer %d in %s: other bits", name, layer, dtype)
				}
			}
		}
	}
}

func TestWeightsAreKeptWithinTheirLimit(t *testing.T) {
	proxy := proxied(t, address(t, "float32"))
	read := func(llm *transparentllm.Client) (carried int64) {
		run(t, llm, "My lord")
		must(llm.DecomposedFfnOut(background, 0, 0, 0))(t)
		proxy.interruptNext()
		must(llm.DecomposedFfnOut(background, 0, 0, 1))(t)
		must(llm.Copy().DecomposedFfnOut(background, 0, 0, 0))(t)
		proxy.mutex.Lock()
		defer proxy.mutex.Unlock()
		return proxy.carried
	}
	if carried := read(dial(t, proxy.address())); carried > 50<<10 {
		t.Errorf("%d bytes came for activations alone", carried)
	}
	if carried := read(dial(t, proxy.address(), transparentllm.WithWeightsBytes(1000))); carried < 500<<10 {
		t.Errorf("%d bytes came for two values of 256 KiB", carried)
	}
}
