package transparentllm

import (
	"context"
	"fmt"
)

// graphRowsAtOnce are asked for together.
const graphRowsAtOnce = 256

// GraphEdge is an edge of the contribution graph. Nodes are named X0_3 (token 3 as it is embedded), A1_3 (the stream at position 3
// after layer 1's attention), M1_3 (what its feed-forward part reads and adds there) and I1_3 (the stream as it leaves layer 1).
type GraphEdge struct {
	Source, Target string
	// Weight is the contribution.
	Weight float32
	// Kind is "attention", from another position; "residual", from the same one, with what it attends to itself; "ffn", to and from
	// M; "ffn_residual", past it.
	Kind                 string
	Layer                int
	SourcePos, TargetPos int
}

// GraphRow has all edges of the contribution graph into the nodes of one position; of a causal model no later token adds one.
type GraphRow struct {
	// Chosen is the new token, which was chosen at this position.
	Chosen *NextToken
	// Tokens are the texts of the positions up to this one, which is the last.
	Tokens []string
	// Attention is, of each layer, what each position up to this one gave to the stream after attention, over all heads.
	Attention [][]float32
	// AttentionResidual is, of each layer, that of the stream that entered it; FFN that of the feed-forward part, which both edges of M
	// have; FFNResidual that of the stream after attention, past the feed-forward part.
	AttentionResidual, FFN, FFNResidual []float32

	least float32 // what an edge that counts is above
}

// Pos is the position.
func (r *GraphRow) Pos() int { return len(r.Tokens) - 1 }

// Edges are those that count, layer after layer: with Renormalize all that is left, else those above the threshold.
func (r *GraphRow) Edges() []GraphEdge {
	var found []GraphEdge
	pos, entering := r.Pos(), "X0"
	add := func(source, target string, weight float32, kind string, layer, from int) {
		if weight > r.least {
			found = append(found, GraphEdge{source, target, weight, kind, layer, from, pos})
		}
	}
	for layer, attention := range r.Attention {
		after, ffn, leaving := fmt.Sprintf("A%d_%d", layer, pos), fmt.Sprintf("M%d_%d", layer, pos), fmt.Sprintf("I%d_%d", layer, pos)
		for source, weight := range attention {
			kind := "attention"
			if source == pos {
				kind, weight = "residual", weight+r.AttentionResidual[layer]
			}
			add(fmt.Sprintf("%s_%d", entering, source), after, weight, kind, layer, source)
		}
		add(after, ffn, r.FFN[layer], "ffn", layer, pos)
		add(ffn, leaving, r.FFN[layer], "ffn", layer, pos)
		add(after, leaving, r.FFNResidual[layer], "ffn_residual", layer, pos)
		entering = fmt.Sprintf("I%d", layer)
	}
	return found
}

// GrowingGraph goes on with a text, and calls row with the row of the contribution graph of the position that chose each new token.
// The rows come when the text is whole, of its run, which is current then: a row is as much work as the text is long, where the
// whole graph takes its square. An error of row ends it and is returned. 0.04, renormalized, is a usual threshold.
//
// Errors: those of Generate and of ContributionEdgesTo.
func (c *Client) GrowingGraph(ctx context.Context, prompt string, asked GenerateOptions, edges EdgeOptions,
	row func(*GraphRow) error) error {
	if !(edges.Threshold >= 0 && edges.Threshold <= 1) { // nor is NaN
		return failure(ErrInvalidRequest, "Threshold is %v: it must be from 0 to 1", edges.Threshold)
	}
	var chosen []*NextToken
	if err := c.Generate(ctx, []string{prompt}, asked, func(step []*NextToken) error {
		if step[0] != nil {
			chosen = append(chosen, step[0])
		}
		return nil
	}); err != nil {
		return err
	}
	own := c.Copy()
	described, err := own.DescribeRun(ctx)
	if err != nil {
		return err
	}
	info, err := own.ModelInfo(ctx)
	if err != nil {
		return err
	}
	first, texts := len(described)-len(chosen), make([]string, len(described))
	for i, token := range described {
		texts[i] = token.Text
	}
	for begin := 0; begin < len(chosen); begin += graphRowsAtOnce {
		end := begin + graphRowsAtOnce
		if end > len(chosen) {
			end = len(chosen)
		}
		rows, err := own.graphRows(ctx, int(info.NLayers), first+begin, chosen[begin:end], texts, edges)
		if err != nil {
			return err
		}
		for _, each := range rows {
			if err := row(each); err != nil {
				return err
			}
		}
	}
	return nil
}

// graphRows are those of positions from one on, which chose these tokens.
func (c *Client) graphRows(ctx context.Context, layers, first int, chosen []*NextToken, texts []string,
	edges EdgeOptions) ([]*GraphRow, error) {
	asked := EdgeToOptions{make([]int, len(chosen)), edges.Threshold, edges.Renormalize, edges.Norm}
	rows := make([]*GraphRow, len(chosen))
	for i, token := range chosen {
		asked.Targets[i] = first + i
		rows[i] = &GraphRow{Chosen: token, Tokens: texts[: first+i+1 : first+i+1]}
		if !edges.Renormalize {
			rows[i].least = float32(edges.Threshold)
		}
	}
	reads := make([]Read, layers)
	for layer := range reads {
		reads[layer] = ContributionEdgesTo(0, layer, asked)
	}
	came, err := c.FetchParts(ctx, reads)
	if err != nil {
		return nil, err
	}
	for _, parts := range came {
		attention, width := parts["attention"], parts["attention"].shape[1]
		for i, row := range rows {
			row.Attention = append(row.Attention, attention.singles(i*width, first+i+1))
			row.AttentionResidual = append(row.AttentionResidual, parts["attention_residual"].float32(i))
			row.FFN = append(row.FFN, parts["ffn"].float32(i))
			row.FFNResidual = append(row.FFNResidual, parts["ffn_residual"].float32(i))
		}
	}
	return rows, nil
}
