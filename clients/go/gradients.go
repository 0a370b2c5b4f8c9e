package transparentllm

import (
	"context"

	pb "transparentllm.dev/go/transparent_llm/v1"
)

const (
	mostGradientSites   = 4096
	mostGradientSources = 16
)

// FrozenPart is what is a constant of the backward pass. With all four a gradient is the direct effect on the output, by the
// residual stream alone.
type FrozenPart = pb.FrozenPart

// The parts.
const (
	FrozenPatterns   = pb.FrozenPart_FROZEN_PART_PATTERNS    // attention patterns
	FrozenNormScales = pb.FrozenPart_FROZEN_PART_NORM_SCALES // what norms divide by
	FrozenAttention  = pb.FrozenPart_FROZEN_PART_ATTENTION   // queries, keys and values
	FrozenNeurons    = pb.FrozenPart_FROZEN_PART_NEURONS     // activations of neurons
)

// SiteGradient is what is told of the gradient g of a metric by the tensor a at a site. The functions that begin with Gradient
// make one.
type SiteGradient struct {
	site   Site
	form   pb.GradientForm
	source *Client
	rows   []int
}

// GradientBy is g itself: of the stream and of branches [batch pos d_model], of all heads [batch pos head d_head], of keys and
// values kv_head, of one head [batch pos d_head], of neurons [batch pos neuron], of patterns [batch head query_pos key_pos].
func GradientBy(site Site) SiteGradient {
	return SiteGradient{site: site, form: pb.GradientForm_GRADIENT_FORM_GRADIENT}
}

// GradientTimesActivation is a times g, summed over the last axis; not over neurons, nor over sources of a pattern, which are
// numbers of their own.
func GradientTimesActivation(site Site) SiteGradient {
	return SiteGradient{site: site, form: pb.GradientForm_GRADIENT_FORM_TIMES_ACTIVATION}
}

// GradientTimesDifference is (a of another client's current run - a) times g, summed in the same way: what the metric gains, to
// first order, if the other run's value is put here (attribution patching). The rows are those of the other run, one for each
// row that is differentiated, of as many tokens; none: the same.
func GradientTimesDifference(site Site, source *Client, rows ...int) SiteGradient {
	held := append([]int{}, rows...)
	return SiteGradient{site, pb.GradientForm_GRADIENT_FORM_TIMES_DIFFERENCE, source, held}
}

// GradientNorm is the length of g along the last axis; the absolute value of a number of its own.
func GradientNorm(site Site) SiteGradient {
	return SiteGradient{site: site, form: pb.GradientForm_GRADIENT_FORM_NORM}
}

// GradientOptions of Gradients and IntegratedGradients.
type GradientOptions struct {
	Rows   []int        // of the run; none: all
	Frozen []FrozenPart // each at most once
	// Edits of the run as it is differentiated, whose rows and positions are those of the whole run. The gradient goes through what
	// they do; what they set is a constant. What stands at a site, and the gradient by it, are those after the edits there.
	Edits []Edit
	// Progress is called as Progress says.
	Progress func(received, total int64)
}

// GradientsParts is what Gradients answers.
type GradientsParts struct {
	Metric *Tensor   // [batch] F64
	Sites  []*Tensor // F32, in the order asked for; 0 where there is padding
}

// Gradients differentiates a number of each row of the current run by what that row has at some sites: one forward and one
// backward pass for all of them, next to the weights.
//
// Errors: those of all reads; ErrInvalidRequest where the run has edits of its own, or something makes no sense; ErrTooLarge for
// more than 4096 sites, 16 other runs, 512 edits, or what the server computes at once; ErrNotSupported where the model has nothing at a
// site, or the server knows no gradients.
func (c *Client) Gradients(ctx context.Context, metric Metric, sites []SiteGradient, options GradientOptions) (*GradientsParts, error) {
	if len(sites) == 0 {
		return nil, failure(ErrInvalidRequest, "gradients are by some sites: name at least one")
	}
	came, err := c.differentiate(ctx, differentiation{metric: metric, sites: sites, options: options})
	if err != nil {
		return nil, err
	}
	return &GradientsParts{came[0], came[1:]}, nil
}

// IntegratedGradientsParts is what IntegratedGradients answers.
type IntegratedGradientsParts struct {
	Metric         *Tensor // [batch] F64
	BaselineMetric *Tensor // [batch] F64
	Delta          *Tensor // [batch] F64; the sum of the gradients less the difference of the metrics: 0 were the rule exact
	Values         *Tensor // F32, (x - baseline) times the mean gradient, as GradientBy has it of the site: [batch pos d_model]
}

// IntegratedGradients averages gradients along a path. Errors: those of Gradients.
func (c *Client) IntegratedGradients(ctx context.Context, metric Metric, path GradientPath,
	options GradientOptions) (*IntegratedGradientsParts, error) {
	came, err := c.differentiate(ctx, differentiation{metric: metric, path: &path, options: options})
	if err != nil {
		return nil, err
	}
	return &IntegratedGradientsParts{came[0], came[1], came[2], came[3]}, nil
}

// differentiation is what is asked for: by sites, along a path, or of edges.
type differentiation struct {
	metric  Metric
	sites   []SiteGradient
	path    *GradientPath
	edges   func(*pb.GradientEdges, *sources) error // nil: not of edges
	options GradientOptions
}

func (c *Client) differentiate(ctx context.Context, asked differentiation) ([]*Tensor, error) {
	var from sources
	message, err := asked.request(&from)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.calls.timeout)
	defer cancel()
	if err := c.require(ctx, "gradients"); err != nil {
		return nil, err
	}
	var came []*Tensor
	err = c.ofRun(ctx, func(held *run) error {
		model, err := c.description(ctx, held.digest)
		if err != nil {
			return err
		}
		message.RunId = held.id
		known := gradientsExpected(held, model, message)
		return c.bringing(ctx, from.runs, held.key, func() error {
			message.Options = &pb.TensorOptions{}
			sent := request{"Gradients", message, message.Options, held.key, known}
			tensors, err := c.calls.tensors(ctx, sent, len(known), asked.options.Progress)
			if err != nil {
				return err
			}
			came, err = known.whole(tensors)
			return err
		})
	})
	return came, err
}

// request is the message, but for the run.
func (d differentiation) request(from *sources) (made *pb.GradientsRequest, err error) {
	if err := requireFewOf("sites of gradients", len(d.sites), mostGradientSites); err != nil {
		return nil, err
	}
	made = &pb.GradientsRequest{}
	if made.Metric, err = d.metric.on(from); err != nil {
		return nil, err
	}
	if made.Rows, err = indices("rows", d.options.Rows); err != nil {
		return nil, err
	}
	if made.Frozen, err = frozenParts(d.options.Frozen); err != nil {
		return nil, err
	}
	if made.Edits, err = interventions(d.options.Edits, from); err != nil {
		return nil, err
	}
	others := map[*Client]bool{}
	for _, each := range d.sites {
		site, err := each.on(from)
		if err != nil {
			return nil, err
		}
		if made.Sites = append(made.Sites, site); each.source != nil {
			others[each.source] = true
		}
	}
	if err := requireFewOf("other runs of gradients", len(others), mostGradientSources); err != nil {
		return nil, err
	}
	if d.path != nil {
		made.Path, err = d.path.on(from)
	}
	if d.edges != nil {
		made.Edges = &pb.GradientEdges{}
		err = d.edges(made.Edges, from)
	}
	return made, err
}

// frozenParts refuses what is no part, or there twice.
func frozenParts(parts []FrozenPart) ([]FrozenPart, error) {
	seen := map[FrozenPart]bool{}
	for _, part := range parts {
		if part < FrozenPatterns || part > FrozenNeurons || seen[part] {
			return nil, failure(ErrInvalidRequest, "Frozen has %d, which is no part, or there twice", part)
		}
		seen[part] = true
	}
	return append([]FrozenPart(nil), parts...), nil
}

// on is the message of it, with the run that it takes from.
func (g SiteGradient) on(from *sources) (made *pb.GradientSite, err error) {
	if g.form == pb.GradientForm_GRADIENT_FORM_UNSPECIFIED {
		return nil, failure(ErrInvalidRequest, "a gradient is absent: make one with GradientBy or another function")
	}
	if err := g.site.check(); err != nil {
		return nil, err
	}
	made = &pb.GradientSite{Site: g.site.wire, Form: g.form}
	if g.form == pb.GradientForm_GRADIENT_FORM_TIMES_DIFFERENCE {
		if made.RunId, err = from.id(g.source); err != nil {
			return nil, err
		}
	}
	made.SourceRows, err = indices("rows", g.rows)
	return made, err
}
