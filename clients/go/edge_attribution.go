package transparentllm

import (
	"context"
	"fmt"
	"math"
	"sort"
	"strconv"

	pb "transparentllm.dev/go/transparent_llm/v1"
)

// EdgeAttributionOptions of EdgeAttribution.
type EdgeAttributionOptions struct {
	// Steps are 0 for gradients of this run (EAP), or up to 1000 for the mean of those at so many nodes on the straight way from the
	// embedding of this run to that of the other (EAP-IG).
	Steps      int
	Rows       []int        // of the run; none: all
	SourceRows []int        // of the other run, one for each row, of as many tokens; none: the same
	Frozen     []FrozenPart // each at most once
	// Progress is called as Progress says.
	Progress func(received, total int64)
}

// EdgeAttributionParts is what EdgeAttribution answers. Senders are the embedding, then, layer by layer, each head and the
// feed-forward part; a score is 0 where a sender does not come before a receiver.
type EdgeAttributionParts struct {
	Metric *Tensor // [batch] F64
	Query  *Tensor // [batch sender layer head] F32
	Key    *Tensor // [batch sender layer kv_head] F32
	Value  *Tensor // [batch sender layer kv_head] F32
	FFN    *Tensor // [batch sender layer] F32
	Logits *Tensor // [batch sender] F32
}

// ScoredEdge is an edge between two parts of a model. They are named as sites are, "residual_in(0)", "head(1, 2)" and "ffn_out(1)",
// and receivers "query(1, 2)", "key(1, 2)", "value(1, 2)", "ffn(1)" and "logits".
type ScoredEdge struct {
	Sender, Receiver string
	Score            float64
}

// EdgeAttribution scores all edges between parts of the model at once, by attribution patching: what a sender adds to the residual
// stream in another client's current run, less what it adds in this one, times the gradient of the metric by the stream as one
// receiver alone reads it, through its norm.
//
// Errors: those of Gradients; ErrInvalidRequest for a metric that is a projection, and for rows of another length.
func (c *Client) EdgeAttribution(ctx context.Context, metric Metric, source *Client,
	options EdgeAttributionOptions) (*EdgeAttributionParts, error) {
	if metric.kind == pb.MetricKind_METRIC_KIND_PROJECTION {
		return nil, failure(ErrInvalidRequest, "edges are of a metric of logits, not of a projection")
	}
	if options.Steps < 0 || options.Steps > mostPathSteps {
		return nil, failure(ErrInvalidRequest, "edges have 0 to %d steps, got %d", mostPathSteps, options.Steps)
	}
	edges := func(made *pb.GradientEdges, from *sources) (err error) {
		if made.RunId, err = from.id(source); err != nil {
			return err
		}
		made.Steps = uint32(options.Steps)
		made.SourceRows, err = indices("rows", options.SourceRows)
		return err
	}
	given := GradientOptions{Rows: options.Rows, Frozen: options.Frozen, Progress: options.Progress}
	came, err := c.differentiate(ctx, differentiation{metric: metric, edges: edges, options: given})
	if err != nil {
		return nil, err
	}
	return &EdgeAttributionParts{came[0], came[1], came[2], came[3], came[4], came[5]}, nil
}

// Top are the edges of a row with the largest scores, of whichever sign, the largest first: at most so many.
//
// Errors: ErrIndexOutOfRange for a row that is not there; ErrInvalidRequest for less than one.
func (e *EdgeAttributionParts) Top(row, count int) ([]ScoredEdge, error) {
	if batch := e.Metric.shape[0]; row < 0 || row >= batch {
		return nil, failure(ErrIndexOutOfRange, "row %d is out of range: there are %d", row, batch).because("INDEX_OUT_OF_RANGE",
			"axis", "batch", "size", strconv.Itoa(batch), "got", strconv.Itoa(row))
	}
	if count < 1 {
		return nil, failure(ErrInvalidRequest, "the %d largest edges are none: ask for at least 1", count)
	}
	senders := senderNames(e.Query.shape[2], e.Query.shape[3])
	var all []ScoredEdge
	for _, each := range []struct {
		name   string
		scores *Tensor
	}{{"query", e.Query}, {"key", e.Key}, {"value", e.Value}, {"ffn", e.FFN}, {"logits", e.Logits}} {
		receivers := receiverNames(each.name, each.scores.shape[2:])
		width := each.scores.Len() / each.scores.shape[0]
		for i, score := range each.scores.singles(row*width, width) {
			all = append(all, ScoredEdge{senders[i/len(receivers)], receivers[i%len(receivers)], float64(score)})
		}
	}
	sort.SliceStable(all, func(i, j int) bool { return math.Abs(all[i].Score) > math.Abs(all[j].Score) })
	if count < len(all) {
		all = all[:count]
	}
	return all, nil
}

// senderNames are those of all of a model.
func senderNames(layers, heads int) []string {
	names := []string{"residual_in(0)"}
	for layer := 0; layer < layers; layer++ {
		for head := 0; head < heads; head++ {
			names = append(names, fmt.Sprintf("head(%d, %d)", layer, head))
		}
		names = append(names, fmt.Sprintf("ffn_out(%d)", layer))
	}
	return names
}

// receiverNames are those of receivers of one kind, of so many layers and perhaps heads.
func receiverNames(kind string, shape []int) []string {
	switch len(shape) {
	case 0:
		return []string{kind}
	case 1:
		var names []string
		for layer := 0; layer < shape[0]; layer++ {
			names = append(names, fmt.Sprintf("%s(%d)", kind, layer))
		}
		return names
	}
	var names []string
	for layer := 0; layer < shape[0]; layer++ {
		for head := 0; head < shape[1]; head++ {
			names = append(names, fmt.Sprintf("%s(%d, %d)", kind, layer, head))
		}
	}
	return names
}
