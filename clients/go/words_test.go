package transparentllm_test

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	transparentllm "transparentllm.dev/go"
)

func TestTheTokensOfATextAreThoseOfARunOfIt(t *testing.T) {
	llm := ran(t)
	const text = "My lord, the king"
	if err := llm.Run(background, []string{text, "My"}); err != nil {
		t.Fatal(err)
	}
	row := must(must(llm.Tokens(transparentllm.Slice("batch", transparentllm.Stop(1))))(t).Int64s())(t)
	if got := must(llm.ToTokens(background, text))(t); !reflect.DeepEqual(got, row) {
		t.Errorf("%v, not %v", got, row)
	}
	if got := must(llm.ToTokens(background, text, transparentllm.AddBOS(false)))(t); !reflect.DeepEqual(got, row[1:]) {
		t.Errorf("%v, not %v", got, row[1:])
	}
	texts := must(llm.ToStrTokens(background, text))(t)
	if want := must(llm.TokensToStrings(background, row))(t); !reflect.DeepEqual(texts, want) {
		t.Errorf("%q, not %q", texts, want)
	}
	last := must(llm.Last())(t)
	if !reflect.DeepEqual(last, []int{len(row) - 1, 1}) {
		t.Errorf("last are %v", last)
	}
	listed := must(llm.DescribeRun(background))(t)
	if len(listed) != len(row)+2 || listed[1] != (transparentllm.TokenAt{Pos: 1, ID: row[1], Text: texts[1]}) || listed[len(row)+1].Row != 1 {
		t.Errorf("%v", listed)
	}
}

func TestTextThatIsNotOneToken(t *testing.T) {
	llm := ran(t)
	var failed *transparentllm.Error
	_, err := llm.ToSingleToken(background, " king of France")
	if !errors.As(err, &failed) || failed.Class != transparentllm.ErrInvalidRequest || failed.Metadata["tokens"] != "5" ||
		!strings.Contains(failed.Message, `" king of France" is 5 tokens, not one: " king", " of", " F", "r", "ance"`) {
		t.Errorf("%v", err)
	}
	if _, err := llm.ToSingleToken(background, "\xFF"); !errors.Is(err, transparentllm.ErrInvalidRequest) {
		t.Errorf("no text: %v", err)
	}
	_, err = llm.ToSingleToken(background, strings.Repeat("\x1b[2J", 50))
	if !errors.As(err, &failed) || len(failed.Message) > 1000 || strings.Contains(failed.Message, "\x1b") {
		t.Errorf("what a terminal obeys: %v", err)
	}
}

func TestASliceOfAnAxisThatTheValueDoesNotHave(t *testing.T) {
	llm := ran(t)
	slice := transparentllm.Slice
	for want, err := range map[string]error{
		`residual_in has no axis "target", which a Slice of this call cuts; its axes are batch, pos, d_model: `: second(llm.ResidualIn(background, 0, slice("target"))),
		`attention_matrix has no axis "pos"`: second(llm.Fetch(background, []transparentllm.Read{transparentllm.Logits(), transparentllm.AttentionMatrix(0, 0, 0)}, slice("pos"))),
		`mask has no axis "d_model", which `: second(llm.Mask(slice("d_model"))),
		`tokens has no axis "d_model"`:       second(llm.Tokens(slice("d_model"))),
		`logits has no axis "head"`:          second(llm.Open(background, transparentllm.Logits(), slice("head"))),
		`neuron_output has no axis "pos"`:    second(llm.NeuronOutput(background, 0, 0, slice("pos"))),
		`unembed has no axis "pos", which a Slice of this call cuts; its axes are d_vocab: `: second(llm.Unembed(background, transparentllm.NewVector(make([]float32, 128)), true, slice("pos"))),
	} {
		var failed *transparentllm.Error
		if !errors.As(err, &failed) || failed.Class != transparentllm.ErrInvalidRequest || failed.Reason != "INVALID_SLICE" ||
			!strings.HasPrefix(failed.Message, want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestTheAxisOfTheVocabularyHasTwoNames(t *testing.T) {
	llm := ran(t)
	first := transparentllm.Stop(3)
	for _, axis := range []string{"vocab", "d_vocab"} {
		logits := must(llm.Logits(background, transparentllm.Slice(axis, first)))(t)
		projected := must(llm.Unembed(background, transparentllm.NewVector(make([]float32, 128)), true, transparentllm.Slice(axis, first)))(t)
		if logits.Shape()[2] != 3 || projected.Shape()[0] != 3 {
			t.Errorf("%s: %v, %v", axis, logits.Shape(), projected.Shape())
		}
	}
	if _, err := llm.Logits(background, transparentllm.Slice("vocab"), transparentllm.Slice("d_vocab")); !errors.Is(err, transparentllm.ErrInvalidRequest) {
		t.Errorf("both at once: %v", err)
	}
}

func TestUnembedTakesAMatrix(t *testing.T) {
	llm := ran(t)
	last := transparentllm.Slice("pos", transparentllm.Start(-1))
	rows := must(llm.ResidualOut(background, 3, last, transparentllm.Slice("batch", transparentllm.Stop(2))))(t)
	matrix := must(transparentllm.NewTensor(rows.Dtype(), []int{2, 128}, rows.Bytes()))(t)
	got := must(llm.Unembed(background, matrix, true))(t)
	if shape := got.Shape(); !reflect.DeepEqual(got.Dims(), []string{"n", "vocab"}) || shape[0] != 2 || shape[1] != 1024 {
		t.Fatalf("%v %v", got.Dims(), shape)
	}
	vector := must(transparentllm.NewTensor(rows.Dtype(), []int{128}, rows.Bytes()[:len(rows.Bytes())/2]))(t)
	alone := must(llm.Unembed(background, vector, true))(t)
	if a, b := must(got.At(0, 5))(t), must(alone.At(5))(t); math.Abs(a-b) > 1e-4 {
		t.Errorf("%v, not %v", a, b)
	}
}
