package transparentllm_test

import (
	"bytes"
	"math"
	"testing"

	transparentllm "transparentllm.dev/go"
)

// two are a client and another one with a run of its own, of a real server.
func two(t *testing.T) (llm, other *client) {
	t.Helper()
	llm = dial(t, address(t, "float32"))
	other = llm.Copy()
	for _, each := range []*client{llm, other} {
		tokens := map[*client][][]int64{llm: unedited, other: ofOthers}[each]
		if err := each.RunTokens(background, tokens); err != nil {
			t.Fatal(err)
		}
	}
	return llm, other
}

// wave is a vector as wide as the residual stream of a client's model.
func wave(t *testing.T, llm *client) transparentllm.Vector {
	t.Helper()
	values := make([]float32, must(llm.ModelInfo(background))(t).DModel)
	for i := range values {
		values[i] = float32(math.Sin(float64(i)))
	}
	return transparentllm.Literal(values)
}

func TestEveryEditIsMadeByARealServer(t *testing.T) {
	llm, other := two(t)
	v, plain := wave(t, llm), must(llm.RunID())(t)
	names := map[string]bool{plain: true}
	for _, each := range []edit{
		transparentllm.Zero(transparentllm.AtHead(1, 2), all()),
		transparentllm.Scale(transparentllm.AtResidualAfterAttn(0), -0.5, transparentllm.Positions(0, -1).OfRows(1)),
		transparentllm.Add(at(0), v, 2, transparentllm.LastPosition()),
		transparentllm.AddRelative(at(1), transparentllm.Unembedding(5).Minus(transparentllm.Unembedding(6)), 0.5, all()),
		transparentllm.Add(transparentllm.AtResidualOut(-1), transparentllm.NeuronOutput(1, 7), 3, transparentllm.Positions(0)),
		transparentllm.Add(transparentllm.AtFfnOut(0), transparentllm.ValueOf(transparentllm.AtFfnOut(1), other, 1, -1), 1, transparentllm.Positions(1)),
		transparentllm.SetTo(transparentllm.AtAttnOut(1), v, transparentllm.Positions(1).OfRows(0, 1)),
		transparentllm.Mean(at(1), other, all().OfRows(0)),
		transparentllm.Patch(transparentllm.AtPattern(0, 1), other, transparentllm.Positions(2)),
		transparentllm.Patch(at(1), other, transparentllm.Positions(0, 1).OfRows(1), transparentllm.FromPositions(-1, 0), transparentllm.FromRows(0)),
		transparentllm.Project(at(1), v, 0, transparentllm.Positions(1)),
		transparentllm.Clamp(at(1), v, 30, math.Inf(1), transparentllm.Positions(1)),
		transparentllm.Swap(at(1), v, transparentllm.Unembedding(5), transparentllm.Positions(1)),
		transparentllm.Noise(transparentllm.AtNeurons(0, 3, 5), 0.5, -7, transparentllm.Positions(1)),
		transparentllm.Zero(transparentllm.AtAllNeurons(0), all()),
	} {
		if err := llm.RunTokens(background, unedited, transparentllm.Edits(each)); err != nil {
			t.Error(err)
			continue
		}
		effects, name := must(llm.Effects())(t), must(llm.RunID())(t)
		if len(effects) != 1 || effects[0].Changed == 0 || effects[0].DeltaNorm <= 0 || names[name] {
			t.Errorf("%v of %s", effects, name)
		}
		names[name] = true
	}
}

func TestValuesOfAnEditedRunAreTheEditedOnes(t *testing.T) {
	llm, other := two(t)
	before := must(llm.Logits(background))(t)
	if err := llm.RunTokens(background, unedited, transparentllm.Edits(transparentllm.Patch(at(1), other, transparentllm.Positions(2)))); err != nil {
		t.Fatal(err)
	}
	third := transparentllm.Slice("pos", transparentllm.Start(2), transparentllm.Stop(3))
	got, want := must(llm.ResidualIn(background, 1, third))(t), must(other.ResidualIn(background, 1, third))(t)
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Error("the patched positions are not those of the source")
	}
	after := must(llm.Logits(background))(t)
	if bytes.Equal(after.Bytes(), before.Bytes()) {
		t.Error("the logits are those of the run without edits")
	}
	name := must(llm.RunID())(t)
	for _, each := range []*client{llm, other} { // both lost: the read makes the source again, and then the run, edited
		if err := each.Release(background); err != nil {
			t.Fatal(err)
		}
	}
	again := must(llm.Logits(background))(t)
	if !bytes.Equal(again.Bytes(), after.Bytes()) || must(llm.RunID())(t) != name {
		t.Error("the run was made again without its edits")
	}
	if err := llm.RunTokens(background, unedited); err != nil {
		t.Fatal(err)
	}
	if plain := must(llm.Logits(background))(t); !bytes.Equal(plain.Bytes(), before.Bytes()) || len(must(llm.Effects())(t)) != 0 {
		t.Error("a run without edits has some")
	}
}
