package transparentllm_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"

	transparentllm "transparentllm.dev/go"
)

// saeSite is what the sparse autoencoder of these tests is of: its features are the positive numbers themselves.
const saeSite = 1

// withSAE is a client of a real server whose model has it, with a current run.
func withSAE(t *testing.T) *client {
	t.Helper()
	python := os.Getenv("PYTHON")
	if python == "" {
		t.Skip("no server: PYTHON is not set")
	}
	width := int(must(dial(t, address(t, "float32")).ModelInfo(background))(t).DModel)
	servers.Lock()
	if servers.address["sae"] == "" {
		folder := saveSAE(t, width)
		servers.address["sae"] = start(t, python, "sae", "--dtype", "float32", "--sae", "positive="+folder+"@residual_out.1")
	}
	servers.Unlock()
	llm := dial(t, servers.address["sae"])
	run(t, llm, "My lord, the king", "What")
	return llm
}

// saveSAE writes one as SAELens does.
func saveSAE(t *testing.T, width int) string {
	t.Helper()
	identity := make([]byte, 4*width*width)
	for i := 0; i < width; i++ {
		binary.LittleEndian.PutUint32(identity[4*(i*width+i):], math.Float32bits(1))
	}
	zeros := make([]byte, 4*width)
	heads, data := map[string]any{}, []byte{}
	for _, each := range []struct {
		name  string
		shape []int
		data  []byte
	}{{"W_enc", []int{width, width}, identity}, {"W_dec", []int{width, width}, identity},
		{"b_enc", []int{width}, zeros}, {"b_dec", []int{width}, zeros}} {
		ends := []int{len(data), len(data) + len(each.data)}
		heads[each.name] = map[string]any{"dtype": "F32", "shape": each.shape, "data_offsets": ends}
		data = append(data, each.data...)
	}
	head := must(json.Marshal(heads))(t)
	config := must(json.Marshal(map[string]any{"architecture": "standard", "d_in": width, "d_sae": width, "dtype": "float32",
		"metadata": map[string]any{}, "apply_b_dec_to_input": true}))(t)
	folder := t.TempDir()
	weights := append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(head))), head...), data...)
	for name, content := range map[string][]byte{"cfg.json": config, "sae_weights.safetensors": weights} {
		if err := os.WriteFile(filepath.Join(folder, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

func TestFeaturesAreThoseOfTheSite(t *testing.T) {
	llm := withSAE(t)
	stream := must(llm.ResidualOut(background, saeSite))(t)
	got := must(llm.Features(background, 0, transparentllm.FeatureOptions{Positions: []int{-1, 0}, K: 3}))(t)
	lasts := must(llm.Last())(t)
	for i, pos := range []int{lasts[0], 0} {
		best, active := 0, 0
		for feature := 0; feature < stream.Shape()[2]; feature++ {
			value := must(stream.At(0, pos, feature))(t)
			if value > must(stream.At(0, pos, best))(t) {
				best = feature
			}
			if value > 0 {
				active++
			}
		}
		if id := must(got.IDs.At(i, 0))(t); int(id) != best {
			t.Errorf("position %d: feature %v, not %d", pos, id, best)
		}
		if value, want := must(got.Activations.At(i, 0))(t), must(stream.At(0, pos, best))(t); math.Abs(value-want) > 1e-5 {
			t.Errorf("position %d: activation %v, not %v", pos, value, want)
		}
		if count := must(got.Active.At(i))(t); int(count) != active {
			t.Errorf("position %d: %v active, not %d", pos, count, active)
		}
	}
	if shape := got.Explained.Shape(); shape[0] != 2 || got.ErrorNorm.Len() != 2 {
		t.Errorf("explained is %v", shape)
	}
	asked := transparentllm.FeatureActivationOptions{SAE: "positive", FeatureIDs: []int{5, -1}}
	chosen := must(llm.FeatureActivations(background, 0, asked))(t)
	if shapeAndDims(chosen) != shapeAndDims(must(llm.FeatureActivations(background, 1, asked))(t)) {
		t.Error("a padded row has another shape")
	}
	want := math.Max(must(stream.At(0, 1, 5))(t), 0)
	if value := must(chosen.At(1, 0))(t); math.Abs(value-want) > 1e-5 {
		t.Errorf("activation %v, not %v", value, want)
	}
}

func TestEditsByFeatures(t *testing.T) {
	llm := withSAE(t)
	site, everywhere := transparentllm.AtResidualOut(saeSite), all()
	before := must(llm.ResidualOut(background, saeSite))(t)
	for name, c := range map[string]struct {
		edit edit
		is   func(float64) float64
	}{
		"its decoder": {transparentllm.Add(site, transparentllm.SaeFeature("positive", 5), 2, everywhere), func(x float64) float64 { return x + 2 }},
		"its encoder": {transparentllm.Add(site, transparentllm.SaeEncoder("positive", 5), 3, everywhere), func(x float64) float64 { return x + 3 }},
		"clamped": {transparentllm.ClampFeature(site, "positive", 5, 1, math.Inf(1), everywhere),
			func(x float64) float64 { return x + math.Max(1, math.Max(x, 0)) - math.Max(x, 0) }},
	} {
		if err := llm.Run(background, []string{"My lord, the king", "What"}, transparentllm.Edits(c.edit)); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		after := must(llm.ResidualOut(background, saeSite))(t)
		got, want := must(after.At(0, 1, 5))(t), c.is(must(before.At(0, 1, 5))(t))
		if math.Abs(got-want) > 1e-4 || must(after.At(0, 1, 6))(t) != must(before.At(0, 1, 6))(t) {
			t.Errorf("%s: %v, not %v", name, got, want)
		}
	}
}

func TestFeaturesThatThereAreNot(t *testing.T) {
	llm, site := withSAE(t), transparentllm.AtResidualOut(saeSite)
	edited := func(edit edit) error { return llm.Run(background, []string{"a"}, transparentllm.Edits(edit)) }
	invalid := transparentllm.ErrInvalidRequest
	for name, c := range map[string]struct {
		err   error
		class *transparentllm.Class
	}{
		"another name":     {second(llm.Features(background, 0, transparentllm.FeatureOptions{SAE: "other"})), invalid},
		"no text":          {second(llm.Features(background, 0, transparentllm.FeatureOptions{SAE: "\xFF"})), invalid},
		"too many":         {second(llm.Features(background, 0, transparentllm.FeatureOptions{K: 1 << 20})), invalid},
		"a negative k":     {second(llm.Features(background, 0, transparentllm.FeatureOptions{K: -1})), invalid},
		"no position":      {second(llm.Features(background, 0, transparentllm.FeatureOptions{Positions: []int{99}})), transparentllm.ErrIndexOutOfRange},
		"a vector of none": {edited(transparentllm.Add(site, transparentllm.SaeFeature("", 5), 2, all())), invalid},
		"no feature":       {edited(transparentllm.Add(site, transparentllm.SaeFeature("positive", 1<<20), 2, all())), transparentllm.ErrIndexOutOfRange},
		"a huge feature":   {edited(transparentllm.ClampFeature(site, "positive", 1<<40, 0, 1, all())), invalid},
		"no bounds":        {edited(transparentllm.ClampFeature(site, "positive", 0, 2, 1, all())), invalid},
		"another site":     {edited(transparentllm.ClampFeature(at(0), "positive", 0, 0, 1, all())), invalid},
	} {
		if !errors.Is(c.err, c.class) {
			t.Errorf("%s: %v", name, c.err)
		}
	}
	if err := second(ran(t).Features(background, 0, transparentllm.FeatureOptions{})); !errors.Is(err, transparentllm.ErrNotSupported) {
		t.Errorf("a model without any: %v", err)
	}
}
