package transparentllm_test

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"
	transparentllm "transparentllm.dev/go"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

const kept = 1 << 26

// lostFor makes sure that what is read now comes from what is kept: every further call would find no server.
func lostFor(t *testing.T, options ...transparentllm.Option) (llm *client, lose func()) {
	t.Helper()
	gate := newGate(t, address(t, "float32"))
	llm = dial(t, gate.address, append([]transparentllm.Option{transparentllm.WithCacheBytes(kept)}, options...)...)
	run(t, llm, "My lord, the king of France is dead", "What say you?")
	return llm, gate.close
}

func TestWhatWasReadIsNotAskedForAgain(t *testing.T) {
	llm, lose := lostFor(t)
	layers := int(must(llm.ModelInfo(background))(t).NLayers)
	last := transparentllm.Slice("pos", transparentllm.Start(-1))
	half := transparentllm.WireDtype(transparentllm.BF16)
	reads := []transparentllm.Read{transparentllm.ResidualOut(1), transparentllm.DecomposedAttn(0, 0), transparentllm.TokenLogprobs(0)}
	asked := map[string]func() (*transparentllm.Tensor, error){
		"a value":        func() (*transparentllm.Tensor, error) { return llm.ResidualIn(background, 1) },
		"a part":         func() (*transparentllm.Tensor, error) { return llm.ResidualIn(background, 1, last) },
		"another type":   func() (*transparentllm.Tensor, error) { return llm.ResidualIn(background, 1, half) },
		"a product":      func() (*transparentllm.Tensor, error) { return llm.DecomposedAttn(background, 1, 0) },
		"one of neurons": func() (*transparentllm.Tensor, error) { return llm.DecomposedFfnOut(background, 0, 0, 1) },
		"an analysis": func() (*transparentllm.Tensor, error) {
			got, err := llm.LayerLens(background, 0, 1, transparentllm.LensOptions{K: 3, TokenIDs: []int{5}})
			if err != nil {
				return nil, err
			}
			return got.TopLogits, nil
		},
		"many": func() (*transparentllm.Tensor, error) {
			got, err := llm.FetchParts(background, reads)
			if err != nil {
				return nil, err
			}
			return got[1]["decomposed_attn"], nil
		},
	}
	before := map[string][]byte{}
	for name, read := range asked {
		got := must(read())(t).Bytes()
		before[name] = append([]byte{}, got...)
		for i := range got {
			got[i] = 0xFF // they are the caller's
		}
	}
	copied := llm.Copy()
	lose()
	for round := 0; round < 2; round++ {
		for name, read := range asked {
			got, err := read()
			if err != nil || !bytes.Equal(got.Bytes(), before[name]) {
				t.Errorf("%s: %v", name, err)
				continue
			}
			for i := range got.Bytes() {
				got.Bytes()[i] = 0xFF
			}
		}
	}
	if got, err := llm.ResidualIn(background, 1-layers); err != nil || !bytes.Equal(got.Bytes(), before["a value"]) {
		t.Errorf("counted from the end: %v", err)
	}
	if got, err := copied.ResidualOut(background, 1); err != nil || got.Len() == 0 {
		t.Errorf("of a copy: %v", err)
	}
}

// counting is a peer whose logits are asked for, and a client of it that keeps some bytes.
func counting(t *testing.T, bytes int64) (*peer, *client) {
	t.Helper()
	p := &peer{logits: []logitsCall{sends(nil, whole())}}
	return p, begun(t, p, transparentllm.WithCacheBytes(bytes))
}

func TestValuesAreKeptAsLongAsSomebodyHasTheirRun(t *testing.T) {
	p, llm := counting(t, kept)
	read := func(llm *client, want int) {
		t.Helper()
		if must(llm.Logits(background))(t); p.timesAsked() != want {
			t.Errorf("%d calls, not %d", p.timesAsked(), want)
		}
	}
	read(llm, 1)
	read(llm, 1)
	other := llm.Copy()
	run(t, llm, "anything") // the same input, and yet a run of its own
	read(llm, 2)
	read(other, 2)
	run(t, other, "anything")
	read(other, 3)
	read(llm, 3)
}

func TestValuesAreKeptWithinTheLimit(t *testing.T) {
	for limit, want := range map[int64]int{0: 2, 15: 2, 16: 1} { // of four bytes
		p, llm := counting(t, limit)
		for i := 0; i < 2; i++ {
			must(llm.Logits(background))(t)
		}
		if p.timesAsked() != want {
			t.Errorf("%d bytes: %d calls, not %d", limit, p.timesAsked(), want)
		}
	}
	p, llm := counting(t, 16)
	part := func(stop int64) transparentllm.ReadOption {
		return transparentllm.Slice("d_vocab", transparentllm.Stop(stop))
	}
	for stop := int64(2); stop < 7; stop++ { // five of four bytes: the first goes
		must(llm.Logits(background, part(stop)))(t)
	}
	must(llm.Logits(background, part(6)))(t)
	if p.timesAsked() != 5 {
		t.Errorf("the last was asked for again")
	}
	must(llm.Logits(background, part(2)))(t)
	if p.timesAsked() != 6 {
		t.Errorf("the first is kept beyond the limit")
	}
}

func TestAFailureIsNotKept(t *testing.T) {
	lying := proto.Clone(whole()).(*pb.TensorChunk)
	lying.Header.Dims[2] = "pos"
	p := &peer{logits: []logitsCall{sends(nil, lying), sends(nil, whole())}}
	llm := begun(t, p, transparentllm.WithCacheBytes(kept))
	if _, err := llm.Logits(background); err == nil {
		t.Error("another axis was taken")
	}
	if got := must(llm.Logits(background))(t); got.Len() != 2 || p.timesAsked() != 2 {
		t.Errorf("%d elements after %d calls", got.Len(), p.timesAsked())
	}
}
