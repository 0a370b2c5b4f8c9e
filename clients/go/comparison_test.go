package transparentllm_test

import (
	"errors"
	"math"
	"testing"

	"google.golang.org/protobuf/proto"
	transparentllm "transparentllm.dev/go"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

func TestTwoRunsBesideEachOther(t *testing.T) {
	llm := dial(t, address(t, "float32"))
	other := llm.Copy()
	edits := transparentllm.Edits(transparentllm.Zero(transparentllm.AtFfnOut(1), all()))
	if err := llm.RunTokens(background, unedited); err != nil {
		t.Fatal(err)
	}
	if err := other.RunTokens(background, unedited, edits); err != nil {
		t.Fatal(err)
	}
	logits, others := must(llm.Logits(background))(t), must(other.Logits(background))(t)
	lasts := must(llm.Last())(t)
	for _, lost := range [][]*client{nil, {llm}, {other}, {llm, other}} {
		for _, each := range lost {
			if err := each.Release(background); err != nil {
				t.Fatal(err)
			}
		}
		rows := must(llm.Compare(background, other, transparentllm.FromPos(1)))(t)
		if len(rows) != len(unedited) {
			t.Fatalf("%d rows", len(rows))
		}
		for i, row := range rows {
			if len(row.KLByPos) != lasts[i] {
				t.Fatalf("row %d has %d positions", i, len(row.KLByPos))
			}
			for j, kl := range row.KLByPos {
				if want := divergence(t, logits, others, i, j+1); math.Abs(kl-want) > 1e-4*(1+want) {
					t.Errorf("row %d, position %d: %v, not %v", i, j+1, kl, want)
				}
			}
			if math.Abs(row.KL-row.KLByPos[len(row.KLByPos)-1]) > 1e-4 || row.TopString == "" || row.TopChanged() != (row.TopToken != row.OtherTopToken) {
				t.Errorf("row %d: %+v", i, row)
			}
		}
	}
	rows := must(other.Compare(background, other))(t)
	if rows[0].KL != 0 || rows[0].TopChanged() || len(rows[0].KLByPos) != 0 {
		t.Errorf("a run beside itself: %+v", rows)
	}
}

// divergence of what two runs say after a position, in nats.
func divergence(t *testing.T, one, other *transparentllm.Tensor, row, pos int) (kl float64) {
	t.Helper()
	logps := [2][]float64{}
	for i, logits := range []*transparentllm.Tensor{one, other} {
		sum := 0.0
		for token := 0; token < logits.Shape()[2]; token++ {
			logit := must(logits.At(row, pos, token))(t)
			logps[i] = append(logps[i], logit)
			sum += math.Exp(logit)
		}
		for token := range logps[i] {
			logps[i][token] -= math.Log(sum)
		}
	}
	for token, logp := range logps[0] {
		kl += math.Exp(logp) * (logp - logps[1][token])
	}
	return kl
}

func TestComparisonsThatMakeNoSense(t *testing.T) {
	llm, other := two(t)
	nothing := dial(t, address(t, "float32"))
	shorter := llm.Copy()
	run(t, shorter, "one")
	from := transparentllm.FromPos
	for name, c := range map[string]struct {
		err   error
		class *transparentllm.Class
	}{
		"nobody":           {second(llm.Compare(background, nil)), transparentllm.ErrInvalidRequest},
		"no run":           {second(llm.Compare(background, nothing)), transparentllm.ErrNotRun},
		"no run of its":    {second(nothing.Compare(background, llm)), transparentllm.ErrNotRun},
		"fewer rows":       {second(llm.Compare(background, shorter)), transparentllm.ErrInvalidRequest},
		"other tokens":     {second(llm.Compare(background, other, from(0))), transparentllm.ErrInvalidRequest},
		"no such position": {second(llm.Compare(background, llm, from(99))), transparentllm.ErrIndexOutOfRange},
		"none before it":   {second(llm.Compare(background, llm, from(-99))), transparentllm.ErrIndexOutOfRange},
	} {
		if !errors.Is(c.err, c.class) {
			t.Errorf("%s: %v", name, c.err)
		}
	}
}

func TestAComparisonIsOfWhatWasAskedFor(t *testing.T) {
	info := &pb.ServerInfoResponse{Features: []string{"compare_runs", "compare_positions"}}
	row := func(kl float64, top int32, kls ...float64) *pb.RowComparison {
		return &pb.RowComparison{Kl: kl, TopId: top, TopString: "a", OtherTopId: 4, KlByPos: kls}
	}
	ask := func(options []transparentllm.CompareOption, rows ...*pb.RowComparison) ([]transparentllm.RowComparison, error) {
		llm := twoRows(t, liar{"ServerInfo": {info}, "CompareRuns": {&pb.CompareRunsResponse{Rows: rows}}})
		return llm.Compare(background, llm, options...)
	}
	last := []transparentllm.CompareOption{transparentllm.FromPos(-1)}
	if got := must(ask(nil, row(0.5, 3), row(0, 4)))(t); got[0].KL != 0.5 || got[0].TopToken != 3 || !got[0].TopChanged() || got[1].TopChanged() {
		t.Errorf("%+v", got)
	}
	if got := must(ask(last, row(0.5, 3, 0.25), row(0, 4, 0)))(t); len(got[0].KLByPos) != 1 || got[0].KLByPos[0] != 0.25 {
		t.Errorf("%+v", got)
	}
	for name, err := range map[string]error{
		"a row less":                   second(ask(nil, row(0.5, 3))),
		"a divergence below 0":         second(ask(nil, row(-0.5, 3), row(0, 4))),
		"a negative token":             second(ask(nil, row(0.5, -3), row(0, 4))),
		"positions unasked":            second(ask(nil, row(0.5, 3, 0.5), row(0, 4))),
		"a position less":              second(ask(last, row(0.5, 3), row(0, 4, 0))),
		"a position more":              second(ask(last, row(0.5, 3, 0, 0), row(0, 4, 0))),
		"a divergence below 0 by then": second(ask(last, row(0.5, 3, -1), row(0, 4, 0))),
	} {
		if !errors.Is(err, transparentllm.ErrInternal) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, features := range [][]string{{}, {"compare_runs"}} {
		llm := twoRows(t, liar{"ServerInfo": []proto.Message{&pb.ServerInfoResponse{Features: features}}})
		if err := second(llm.Compare(background, llm, last...)); !errors.Is(err, transparentllm.ErrNotSupported) {
			t.Errorf("an older server: %v", err)
		}
	}
}
