package transparentllm_test

import (
	"errors"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"
	transparentllm "transparentllm.dev/go"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

type (
	sweepCell    = transparentllm.SweepCell
	sweepOptions = transparentllm.SweepOptions
	metric       = transparentllm.Metric
)

func number(number int) *int { return &number }

func TestACellIsTheRunWithItsEdit(t *testing.T) {
	llm, other := two(t)
	templates := []edit{transparentllm.Patch(transparentllm.AtHead(0, 0), other, transparentllm.Positions(1))}
	var cells []sweepCell
	for layer := 0; layer < 2; layer++ {
		for head := 0; head < 4; head++ {
			cells = append(cells, sweepCell{Layer: number(layer), Head: number(head), Positions: []int{2}})
		}
	}
	reports := 0
	asked := sweepOptions{Before: []edit{transparentllm.Scale(transparentllm.AtFfnOut(1), 0.5, all())},
		Progress: func(came, all int) { reports = came }}
	for _, each := range []*client{llm, other} { // both lost: what is swept and what is patched from
		if err := each.Release(background); err != nil {
			t.Fatal(err)
		}
	}
	got := must(llm.Sweep(background, templates, cells, []metric{metricOf(5), transparentllm.Loss()}, asked))(t)
	if shapeAndDims(got.Baselines) != "F64 [2 2] [metric row]" || shapeAndDims(got.Values) != "F64 [8 2 2] [cell metric row]" || reports != 8 {
		t.Fatalf("%s, %s after %d cells", shapeAndDims(got.Baselines), shapeAndDims(got.Values), reports)
	}
	for cell, edits := range map[int][]edit{
		-1: asked.Before,
		6:  append([]edit{transparentllm.Patch(transparentllm.AtHead(1, 2), other, transparentllm.Positions(2))}, asked.Before...),
	} {
		edited := llm.Copy()
		if err := edited.RunTokens(background, unedited, transparentllm.Edits(edits...)); err != nil {
			t.Fatal(err)
		}
		logits, lasts := must(edited.Logits(background))(t), must(edited.Last())(t)
		for row, last := range lasts {
			value := must(got.Baselines.At(0, row))(t)
			if cell >= 0 {
				value = must(got.Values.At(cell, 0, row))(t)
			}
			if want := must(logits.At(row, last, 5))(t); !near(value, want) {
				t.Errorf("cell %d, row %d: %v, not %v", cell, row, value, want)
			}
		}
	}
	one := must(llm.Sweep(background, []edit{transparentllm.Zero(transparentllm.AtHead(0, 0), all())}, []sweepCell{{}}, []metric{metricOf(5)}, sweepOptions{Rows: []int{1}}))(t)
	if shapeAndDims(one.Values) != "F64 [1 1 1] [cell metric row]" {
		t.Errorf("of one row: %s", shapeAndDims(one.Values))
	}
}

func TestSweepsThatMakeNoSense(t *testing.T) {
	llm := ran(t)
	zero, cells, metrics := []edit{transparentllm.Zero(transparentllm.AtHead(0, 0), all())}, []sweepCell{{}}, []metric{metricOf(5)}
	invalid, large := transparentllm.ErrInvalidRequest, transparentllm.ErrTooLarge
	for name, c := range map[string]struct {
		templates []edit
		cells     []sweepCell
		metrics   []metric
		options   sweepOptions
		class     *transparentllm.Class
	}{
		"no template":    {nil, cells, metrics, sweepOptions{}, invalid},
		"no cell":        {zero, nil, metrics, sweepOptions{}, invalid},
		"no metric":      {zero, cells, nil, sweepOptions{}, invalid},
		"empty metric":   {zero, cells, make([]metric, 1), sweepOptions{}, invalid},
		"many metrics":   {zero, cells, make([]metric, 17), sweepOptions{}, large},
		"many edits":     {zero, cells, metrics, sweepOptions{Before: make([]edit, 512)}, large},
		"no head":        {zero, []sweepCell{{Head: number(99)}}, metrics, sweepOptions{}, transparentllm.ErrIndexOutOfRange},
		"a huge layer":   {zero, []sweepCell{{Layer: number(1 << 40)}}, metrics, sweepOptions{}, invalid},
		"neurons of one": {zero, []sweepCell{{Neurons: []int{1}}}, metrics, sweepOptions{}, invalid},
		"no row":         {zero, cells, metrics, sweepOptions{Rows: []int{9}}, transparentllm.ErrIndexOutOfRange},
	} {
		if err := second(llm.Sweep(background, c.templates, c.cells, c.metrics, c.options)); !errors.Is(err, c.class) {
			t.Errorf("%s: %v", name, err)
		}
	}
	small := ran(t, transparentllm.WithMaxBytes(8))
	if err := second(small.Sweep(background, zero, cells, metrics, sweepOptions{})); !errors.Is(err, large) {
		t.Errorf("more than the client takes: %v", err)
	}
}

func TestASweepIsWhatWasAskedFor(t *testing.T) {
	ask := func(limits *pb.Limits, answers ...*pb.SweepResponse) (*transparentllm.SweepParts, error) {
		sent := make([]proto.Message, len(answers))
		for i, each := range answers {
			sent[i] = each
		}
		info := &pb.ServerInfoResponse{Features: []string{"sweep"}, Limits: limits}
		llm := twoRows(t, liar{"ServerInfo": {info}, "Sweep": sent})
		return llm.Sweep(background, []edit{transparentllm.Zero(at(0), all())}, make([]sweepCell, 2), []metric{metricOf(5)}, sweepOptions{})
	}
	first := &pb.SweepResponse{Baselines: []float64{1, 2}, Cells: []uint32{1}, Values: []float64{3, 4}}
	rest := &pb.SweepResponse{Cells: []uint32{0}, Values: []float64{5, 6}}
	got := must(ask(nil, first, rest))(t)
	if values := fmt.Sprint(must(got.Values.Float64s())(t)); values != "[5 6 3 4]" {
		t.Errorf("cells are %s", values)
	}
	single := &pb.SweepResponse{Baselines: []float64{1, 2}, Cells: []uint32{0}, Values: []float64{7, 8}}
	for _, limits := range []*pb.Limits{{MaxSweepCells: 1}, {MaxSweepPositions: 6}, {MaxSweepPositions: 1}} {
		if got := must(ask(limits, single))(t); fmt.Sprint(must(got.Values.Float64s())(t)) != "[7 8 7 8]" {
			t.Errorf("one cell at a time, by %v: %v", limits, got.Values)
		}
	}
	for name, answers := range map[string][]*pb.SweepResponse{
		"nothing":              {},
		"a cell missing":       {first},
		"no baselines":         {{Cells: []uint32{0, 1}, Values: make([]float64, 4)}},
		"other baselines":      {{Baselines: make([]float64, 3), Cells: []uint32{0, 1}, Values: make([]float64, 4)}},
		"baselines again":      {first, {Baselines: []float64{1, 2}, Cells: []uint32{0}, Values: []float64{5, 6}}},
		"a cell twice":         {first, first},
		"twice in one":         {{Baselines: []float64{1, 2}, Cells: []uint32{0, 0}, Values: make([]float64, 4)}},
		"an unknown cell":      {{Baselines: []float64{1, 2}, Cells: []uint32{2}, Values: []float64{5, 6}}},
		"a huge cell":          {{Baselines: []float64{1, 2}, Cells: []uint32{1<<32 - 1}, Values: []float64{5, 6}}},
		"values missing":       {{Baselines: []float64{1, 2}, Cells: []uint32{0}, Values: []float64{5}}},
		"a message of nothing": {first, {}, rest},
	} {
		if _, err := ask(nil, answers...); !errors.Is(err, transparentllm.ErrInternal) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
