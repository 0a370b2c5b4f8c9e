package transparentllm

import (
	"strconv"

	pb "transparentllm.dev/go/transparent_llm/v1"
)

// mostRowTokens that a metric can name: no run has as many rows.
const mostRowTokens = 4096

// Metric is a number of each row's output. The functions that return one only note what is to be measured; what is wrong with
// it, the call that takes it returns.
type Metric struct {
	kind      pb.MetricKind
	tokens    []int
	minus     []int
	pos       int
	run       *Client
	site      Site
	direction Vector
}

// LogitOf is the logit of a token at the last position: one for all rows, or one for each.
func LogitOf(tokens ...int) Metric { return ofTokens(pb.MetricKind_METRIC_KIND_LOGIT, tokens) }

// LogprobOf is the log-probability, natural, of a token: one for all rows, or one for each.
func LogprobOf(tokens ...int) Metric { return ofTokens(pb.MetricKind_METRIC_KIND_LOGPROB, tokens) }

// ProbOf is the probability of a token: one for all rows, or one for each.
func ProbOf(tokens ...int) Metric { return ofTokens(pb.MetricKind_METRIC_KIND_PROB, tokens) }

func ofTokens(kind pb.MetricKind, tokens []int) Metric {
	return Metric{kind: kind, tokens: append([]int{}, tokens...), pos: -1}
}

// Loss is the mean of -log p(next token) over the tokens of a row that another one follows, in nats. It has no position.
func Loss() Metric { return Metric{kind: pb.MetricKind_METRIC_KIND_LOSS, pos: -1} }

// KL is KL(changed || run) of the next token's distribution, in nats. The other client's current run has as many rows, each
// as long; nil: that of what is changed, without the change.
func KL(other *Client) Metric {
	return Metric{kind: pb.MetricKind_METRIC_KIND_KL, run: other, pos: -1}
}

// Entropy is that of the next token's distribution, in nats.
func Entropy() Metric { return Metric{kind: pb.MetricKind_METRIC_KIND_ENTROPY, pos: -1} }

// Projection is the product of the residual stream at a site and a direction, whose length is made 1.
func Projection(site Site, direction Vector) Metric {
	return Metric{kind: pb.MetricKind_METRIC_KIND_PROJECTION, site: site, direction: direction, pos: -1}
}

// Minus is the same number of these tokens less: one for all rows, or one for each. Only metrics of tokens have it.
func (m Metric) Minus(tokens ...int) Metric {
	m.minus = append([]int{}, tokens...)
	return m
}

// At is the same at another position of each row; negative ones count from its last token. Default: -1.
func (m Metric) At(pos int) Metric {
	m.pos = pos
	return m
}

// on is the message of it, with the runs that it takes from.
func (m Metric) on(from *sources) (*pb.SweepMetric, error) {
	isOfTokens := m.kind >= pb.MetricKind_METRIC_KIND_LOGIT && m.kind <= pb.MetricKind_METRIC_KIND_PROB
	switch {
	case m.kind == pb.MetricKind_METRIC_KIND_UNSPECIFIED:
		return nil, failure(ErrInvalidRequest, "a metric is absent: make one with LogitOf, Loss or another function")
	case isOfTokens && len(m.tokens) == 0:
		return nil, failure(ErrInvalidRequest, "a metric of a token names none")
	case !isOfTokens && m.minus != nil:
		return nil, failure(ErrInvalidRequest, "a metric that is not of tokens has no Minus")
	case m.kind == pb.MetricKind_METRIC_KIND_LOSS && m.pos != -1:
		return nil, failure(ErrInvalidRequest, "a loss has no position")
	case len(m.tokens) > mostRowTokens || len(m.minus) > mostRowTokens:
		return nil, failure(ErrTooLarge, "a metric names %d tokens and %d that are less, at most %d of each can be", len(m.tokens),
			len(m.minus), mostRowTokens).because("TOO_LARGE", "allowed", strconv.Itoa(mostRowTokens))
	}
	made := &pb.SweepMetric{Kind: m.kind}
	var err error
	if made.TokenIds, err = indices("token", m.tokens); err != nil {
		return nil, err
	}
	if made.MinusTokenIds, err = indices("token", m.minus); err != nil {
		return nil, err
	}
	if m.kind != pb.MetricKind_METRIC_KIND_LOSS {
		pos, err := index("pos", m.pos)
		if err != nil {
			return nil, err
		}
		made.Pos = &pos
	}
	if m.run != nil {
		if made.RunId, err = from.id(m.run); err != nil {
			return nil, err
		}
	}
	if m.kind == pb.MetricKind_METRIC_KIND_PROJECTION {
		err = m.project(made, from)
	}
	return made, err
}

func (m Metric) project(made *pb.SweepMetric, from *sources) (err error) {
	if err := m.site.check(); err != nil {
		return err
	}
	switch made.Site = m.site.wire; made.Site.Kind {
	case pb.SiteKind_SITE_KIND_RESIDUAL_IN, pb.SiteKind_SITE_KIND_RESIDUAL_AFTER_ATTN, pb.SiteKind_SITE_KIND_RESIDUAL_OUT:
	default:
		return failure(ErrInvalidRequest, "a projection is of the residual stream, not of %v", m.site)
	}
	made.Direction, err = m.direction.on(from)
	return err
}
