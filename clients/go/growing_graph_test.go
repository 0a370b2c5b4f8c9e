package transparentllm_test

import (
	"errors"
	"math"
	"strconv"
	"testing"

	transparentllm "transparentllm.dev/go"
)

func TestRowsOfAGrowingGraphAreThoseOfTheWholeOne(t *testing.T) {
	llm := dial(t, address(t, "float32"))
	for _, edges := range []transparentllm.EdgeOptions{{Threshold: 0.05, Renormalize: true}, {Threshold: 0.05, Norm: transparentllm.NormL2}} {
		var rows []*transparentllm.GraphRow
		err := llm.GrowingGraph(background, "My lord, I shall", generateOptions{MaxNewTokens: 3}, edges, func(row *transparentllm.GraphRow) error {
			rows = append(rows, row)
			return nil
		})
		if err != nil || len(rows) != 3 {
			t.Fatalf("%d rows, %v", len(rows), err)
		}
		last := must(llm.Last())(t)[0]
		for i, row := range rows {
			if row.Pos() != last-2+i || row.Chosen == nil {
				t.Errorf("row %d is at %d of %d and chose %v", i, row.Pos(), last, row.Chosen)
			}
			checkGraphRow(t, llm, row, edges)
		}
	}
}

// checkGraphRow holds a row against the edges of each layer.
func checkGraphRow(t *testing.T, llm *client, row *transparentllm.GraphRow, edges transparentllm.EdgeOptions) {
	t.Helper()
	least, wanted := edges.Threshold, 0
	if edges.Renormalize {
		least = 0
	}
	held := map[[2]string]float32{}
	for _, edge := range row.Edges() {
		held[[2]string{edge.Source, edge.Target}] = edge.Weight
	}
	pos, entering := row.Pos(), "X0"
	for layer := range row.Attention {
		whole := must(llm.ContributionEdges(background, 0, layer, edges))(t)
		check := func(source, target string, weight float64) {
			if weight > least {
				wanted++
			}
			if got := float64(held[[2]string{source, target}]); weight > least && math.Abs(got-weight) > 1e-5 {
				t.Errorf("%s to %s: %v, not %v", source, target, got, weight)
			}
		}
		name := func(kind string, layer, pos int) string { return kind + strconv.Itoa(layer) + "_" + strconv.Itoa(pos) }
		for source := 0; source <= pos; source++ {
			weight := must(whole.Attention.At(pos, source))(t)
			if source == pos {
				weight += must(whole.AttentionResidual.At(pos))(t)
			}
			check(entering+"_"+strconv.Itoa(source), name("A", layer, pos), weight)
		}
		ffn := must(whole.FFN.At(pos))(t)
		check(name("A", layer, pos), name("M", layer, pos), ffn)
		check(name("M", layer, pos), name("I", layer, pos), ffn)
		check(name("A", layer, pos), name("I", layer, pos), must(whole.FFNResidual.At(pos))(t))
		entering = "I" + strconv.Itoa(layer)
	}
	if len(held) != wanted || wanted == 0 {
		t.Errorf("%d edges, not %d", len(held), wanted)
	}
}

func TestAGrowingGraphEndsWithItsReceiver(t *testing.T) {
	llm := dial(t, address(t, "float32"))
	enough, rows := errors.New("enough"), 0
	err := llm.GrowingGraph(background, "My lord", generateOptions{MaxNewTokens: 3}, transparentllm.EdgeOptions{}, func(*transparentllm.GraphRow) error {
		rows++
		return enough
	})
	if !errors.Is(err, enough) || rows != 1 {
		t.Errorf("%d rows, %v", rows, err)
	}
	err = llm.GrowingGraph(background, "My lord", generateOptions{}, transparentllm.EdgeOptions{Threshold: math.NaN()}, nil)
	if !errors.Is(err, transparentllm.ErrInvalidRequest) {
		t.Errorf("a threshold that is none: %v", err)
	}
}
