package transparentllm_test

import (
	"errors"
	"math"
	"testing"

	"google.golang.org/protobuf/proto"
	transparentllm "transparentllm.dev/go"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

type edgeOptions = transparentllm.EdgeAttributionOptions

// What all receivers read of a sender is what patching it is estimated to do: the difference times the gradient at its place.
func TestEdgesOfASenderAddUpToItsNode(t *testing.T) {
	llm, other := two(t)
	for _, each := range []*client{llm, other} {
		if err := each.Release(background); err != nil {
			t.Fatal(err)
		}
	}
	edges := must(llm.EdgeAttribution(background, metricOf(5), other, edgeOptions{}))(t)
	sites := []siteGradient{transparentllm.GradientTimesDifference(at(0), other), transparentllm.GradientTimesDifference(
		transparentllm.AtAllHeads(1), other), transparentllm.GradientTimesDifference(transparentllm.AtFfnOut(2), other)}
	nodes := must(llm.Gradients(background, metricOf(5), sites, gradientOptions{}))(t)
	perLayer := edges.Query.Shape()[3] + 1
	for row := 0; row < 2; row++ {
		for sender, sum := range map[int]float64{
			0:                summed(t, nodes.Sites[0], row, -1),
			1 + perLayer + 2: summed(t, nodes.Sites[1], row, 2),
			3 * perLayer:     summed(t, nodes.Sites[2], row, -1),
		} {
			total := 0.0
			for _, scores := range []*transparentllm.Tensor{edges.Query, edges.Key, edges.Value, edges.FFN, edges.Logits} {
				width := scores.Len() / scores.Shape()[0] / scores.Shape()[1]
				from := (row*scores.Shape()[1] + sender) * width
				for _, score := range must(scores.Float64s())(t)[from : from+width] {
					total += score
				}
			}
			if math.Abs(total-sum) > 2e-3*(1+math.Abs(sum)) {
				t.Errorf("row %d, sender %d: %v, not %v", row, sender, total, sum)
			}
		}
	}
}

// summed is the sum of a row [pos], or of a head of a row [pos head].
func summed(t *testing.T, values *transparentllm.Tensor, row, head int) (sum float64) {
	t.Helper()
	for pos := 0; pos < values.Shape()[1]; pos++ {
		index := []int{row, pos}
		if head >= 0 {
			index = append(index, head)
		}
		sum += must(values.At(index...))(t)
	}
	return sum
}

func TestTheLargestEdgesByTheirNames(t *testing.T) {
	llm, other := two(t)
	edges := must(llm.EdgeAttribution(background, metricOf(5), other, edgeOptions{Steps: 2, Rows: []int{1}, SourceRows: []int{1}}))(t)
	top := must(edges.Top(0, 1<<20))(t)
	layers, heads, senders := edges.Query.Shape()[2], edges.Query.Shape()[3], edges.Query.Shape()[1]
	if want := senders * (layers*(3*heads+1) + 1); len(top) != want {
		t.Fatalf("%d edges, not %d", len(top), want)
	}
	held := map[[2]string]float64{}
	for i, edge := range top {
		held[[2]string{edge.Sender, edge.Receiver}] = edge.Score
		if i > 0 && math.Abs(edge.Score) > math.Abs(top[i-1].Score) {
			t.Errorf("edge %d, %v, is larger than the one before it", i, edge)
		}
	}
	sender := 1 + (heads + 1) + 2
	for edge, score := range map[[2]string]float64{
		{"residual_in(0)", "key(1, 2)"}: must(edges.Key.At(0, 0, 1, 2))(t),
		{"head(1, 2)", "value(3, 0)"}:   must(edges.Value.At(0, sender, 3, 0))(t),
		{"head(1, 2)", "ffn(1)"}:        must(edges.FFN.At(0, sender, 1))(t),
		{"ffn_out(0)", "logits"}:        must(edges.Logits.At(0, heads+1))(t),
		{"ffn_out(3)", "query(2, 1)"}:   0,
	} {
		if got, isThere := held[edge]; !isThere || got != score {
			t.Errorf("%v: %v, not %v", edge, got, score)
		}
	}
	if _, err := edges.Top(1, 5); !errors.Is(err, transparentllm.ErrIndexOutOfRange) {
		t.Errorf("another row: %v", err)
	}
	if _, err := edges.Top(0, 0); !errors.Is(err, transparentllm.ErrInvalidRequest) {
		t.Errorf("no edges: %v", err)
	}
}

func TestEdgesThatMakeNoSense(t *testing.T) {
	llm, other := two(t)
	of := func(metric transparentllm.Metric, source *client, options edgeOptions) error {
		return second(llm.EdgeAttribution(background, metric, source, options))
	}
	invalid := transparentllm.ErrInvalidRequest
	for name, c := range map[string]struct {
		err   error
		class *transparentllm.Class
	}{
		"no steps":       {of(metricOf(5), other, edgeOptions{Steps: -1}), invalid},
		"many steps":     {of(metricOf(5), other, edgeOptions{Steps: 1001}), invalid},
		"a projection":   {of(transparentllm.Projection(at(0), wave(t, llm)), other, edgeOptions{}), invalid},
		"nobody":         {of(metricOf(5), nil, edgeOptions{}), invalid},
		"a part twice":   {of(metricOf(5), other, edgeOptions{Frozen: []transparentllm.FrozenPart{1, 1}}), invalid},
		"no run":         {of(metricOf(5), dial(t, address(t, "float32")), edgeOptions{}), transparentllm.ErrNotRun},
		"another length": {of(metricOf(5), other, edgeOptions{SourceRows: []int{1, 0}}), invalid},
	} {
		if !errors.Is(c.err, c.class) {
			t.Errorf("%s: %v", name, c.err)
		}
	}
}

func TestEdgesAreWhatWasAskedFor(t *testing.T) {
	model := &pb.ModelDescription{Digest: digestOf("model"), Info: &pb.ModelInfo{DModel: 4, NHeads: 2, NLayers: 2}}
	info := &pb.ServerInfoResponse{Models: []*pb.ModelDescription{model}, Features: []string{"gradients"}}
	ask := func(answers ...proto.Message) error {
		llm := twoRows(t, liar{"ServerInfo": {info}, "Gradients": answers})
		return second(llm.EdgeAttribution(background, metricOf(5), llm, edgeOptions{}))
	}
	f64, f32 := pb.Dtype_DTYPE_F64, pb.Dtype_DTYPE_F32
	metric := message("metric", f64, []uint64{2}, "batch")
	query := message("query", f32, []uint64{2, 7, 2, 2}, "batch", "sender", "layer", "head")
	key := message("key", f32, []uint64{2, 7, 2, 1}, "batch", "sender", "layer", "kv_head")
	value := message("value", f32, []uint64{2, 7, 2, 1}, "batch", "sender", "layer", "kv_head")
	ffn := message("ffn", f32, []uint64{2, 7, 2}, "batch", "sender", "layer")
	logits := message("logits", f32, []uint64{2, 7}, "batch", "sender")
	if err := ask(metric, query, key, value, ffn, logits); err != nil {
		t.Fatal(err)
	}
	for name, answers := range map[string][]proto.Message{
		"nothing":       {},
		"one less":      {metric, query, key, value, ffn},
		"another order": {metric, key, query, value, ffn, logits},
		"a sender more": {metric, query, key, value, ffn, message("logits", f32, []uint64{2, 8}, "batch", "sender")},
		"a layer less":  {metric, query, key, value, message("ffn", f32, []uint64{2, 7, 1}, "batch", "sender", "layer"), logits},
	} {
		if err := ask(answers...); !errors.Is(err, transparentllm.ErrInternal) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
