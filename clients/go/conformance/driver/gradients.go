package main

import (
	"encoding/json"
	"errors"
	"fmt"

	transparentllm "transparentllm.dev/go"
)

// metricFields are those of a metric of a scenario.
type metricFields struct {
	Measure   string            `json:"measure"`
	Pos       *int              `json:"pos"`
	Token     json.RawMessage   `json:"token"`
	Minus     json.RawMessage   `json:"minus"`
	Site      []json.RawMessage `json:"site"`
	Direction json.RawMessage   `json:"direction"`
	Run       string            `json:"run"`
}

// gradientFields are those of one site of gradients.
type gradientFields struct {
	Site       []json.RawMessage `json:"site"`
	Form       string            `json:"form"`
	Run        string            `json:"run"`
	SourceRows []int             `json:"source_rows"`
}

// pathFields have one baseline.
type pathFields struct {
	Zero    bool              `json:"zero"`
	TokenID *int              `json:"token_id"`
	Run     string            `json:"run"`
	Steps   *int              `json:"steps"`
	Site    []json.RawMessage `json:"site"`
}

// edgesFields are those of edges between parts.
type edgesFields struct {
	Run        string `json:"run"`
	Steps      int    `json:"steps"`
	SourceRows []int  `json:"source_rows"`
}

func (c called) metric(given *metricFields) (made transparentllm.Metric, err error) {
	tokens, err := oneOrMore(given.Token)
	if err != nil {
		return made, err
	}
	switch given.Measure {
	case "logit":
		made = transparentllm.LogitOf(tokens...)
	case "logprob":
		made = transparentllm.LogprobOf(tokens...)
	case "prob":
		made = transparentllm.ProbOf(tokens...)
	case "loss":
		made = transparentllm.Loss()
	case "kl":
		made = transparentllm.KL(c.clients[given.Run])
	case "entropy":
		made = transparentllm.Entropy()
	case "projection":
		if made, err = c.projection(given); err != nil {
			return made, err
		}
	default:
		return made, cannotBeSaid(fmt.Errorf("there is no measure %q", given.Measure))
	}
	minus, err := oneOrMore(given.Minus)
	if minus != nil {
		made = made.Minus(minus...)
	}
	if given.Pos != nil {
		made = made.At(*given.Pos)
	}
	return made, err
}

func (c called) projection(given *metricFields) (made transparentllm.Metric, err error) {
	var site transparentllm.Site
	var direction transparentllm.Vector
	if given.Site != nil {
		if site, err = siteOf(given.Site); err != nil {
			return made, err
		}
	}
	if given.Direction != nil {
		direction, err = c.vector(given.Direction)
	}
	return transparentllm.Projection(site, direction), err
}

// oneOrMore is a number, or a list of them; nil if it is not there.
func oneOrMore(given json.RawMessage) (list []int, err error) {
	var one int
	if given == nil || string(given) == "null" {
		return nil, nil
	}
	if json.Unmarshal(given, &one) == nil {
		return []int{one}, nil
	}
	return list, json.Unmarshal(given, &list)
}

var frozenParts = map[string]transparentllm.FrozenPart{
	"patterns":    transparentllm.FrozenPatterns,
	"norm_scales": transparentllm.FrozenNormScales,
	"attention":   transparentllm.FrozenAttention,
	"neurons":     transparentllm.FrozenNeurons,
}

// gradients are those of all sites under the names of their tensors.
func (c called) gradients() (fields, error) {
	if c.asked.Metric == nil {
		return nil, errors.New("gradients without a metric")
	}
	metric, err := c.metric(c.asked.Metric)
	if err != nil {
		return nil, err
	}
	edits, err := c.madeEdits()
	if err != nil {
		return nil, err
	}
	options := transparentllm.GradientOptions{Rows: c.asked.Rows, Edits: edits}
	for _, name := range c.asked.Frozen {
		options.Frozen = append(options.Frozen, frozenParts[name]) // of another name 0, which the client refuses
	}
	if c.asked.Edges != nil {
		if c.asked.Sites != nil || c.asked.Path != nil || len(edits) > 0 {
			return nil, cannotBeSaid(errors.New("EdgeAttribution takes no sites, path or edits"))
		}
		return c.edges(metric, options)
	}
	if c.asked.Path != nil {
		if c.asked.Sites != nil {
			return nil, cannotBeSaid(errors.New("sites and a path are of two methods"))
		}
		return c.integrated(metric, options)
	}
	var sites []transparentllm.SiteGradient
	var names []string
	for _, given := range c.asked.Sites {
		site, err := siteOf(given.Site)
		if err != nil {
			return nil, err
		}
		if given.Run != "" && given.Form != "times_difference" {
			return nil, cannotBeSaid(errors.New("only GradientTimesDifference takes another client"))
		}
		sites, names = append(sites, c.gradient(site, given)), append(names, fmt.Sprintf("%.128s", site))
	}
	got, err := c.llm.Gradients(c.ctx, metric, sites, options)
	if err != nil {
		return nil, err
	}
	parts := map[string]*tensor{"metric": got.Metric}
	for i, name := range names {
		parts[name] = got.Sites[i]
	}
	made, err := encodedParts(parts)
	return fields{"parts": made}, err
}

// gradient of the form of a site; of an unknown one nothing, which the client refuses.
func (c called) gradient(site transparentllm.Site, given gradientFields) (made transparentllm.SiteGradient) {
	switch given.Form {
	case "gradient", "":
		return transparentllm.GradientBy(site)
	case "times_activation":
		return transparentllm.GradientTimesActivation(site)
	case "times_difference":
		return transparentllm.GradientTimesDifference(site, c.clients[given.Run], given.SourceRows...)
	case "norm":
		return transparentllm.GradientNorm(site)
	}
	return made
}

func (c called) integrated(metric transparentllm.Metric, options transparentllm.GradientOptions) (fields, error) {
	path, steps := c.asked.Path, 50
	if path.Steps != nil {
		steps = *path.Steps
	}
	along := transparentllm.GradientPath{}
	switch {
	case path.Zero:
		along = transparentllm.FromZero(steps)
	case path.TokenID != nil:
		along = transparentllm.FromToken(*path.TokenID, steps)
	case path.Run != "":
		along = transparentllm.FromRun(c.clients[path.Run], steps)
	}
	if path.Site != nil {
		site, err := siteOf(path.Site)
		if err != nil {
			return nil, err
		}
		along = along.At(site)
	}
	got, err := c.llm.IntegratedGradients(c.ctx, metric, along, options)
	if err != nil {
		return nil, err
	}
	made, err := encodedParts(map[string]*tensor{"metric": got.Metric, "baseline_metric": got.BaselineMetric, "delta": got.Delta,
		"integrated_gradients": got.Values})
	return fields{"parts": made}, err
}

func (c called) edges(metric transparentllm.Metric, options transparentllm.GradientOptions) (fields, error) {
	edges := c.asked.Edges
	asked := transparentllm.EdgeAttributionOptions{Steps: edges.Steps, Rows: options.Rows, SourceRows: edges.SourceRows,
		Frozen: options.Frozen}
	got, err := c.llm.EdgeAttribution(c.ctx, metric, c.clients[edges.Run], asked)
	if err != nil {
		return nil, err
	}
	made, err := encodedParts(map[string]*tensor{"metric": got.Metric, "query": got.Query, "key": got.Key, "value": got.Value,
		"ffn": got.FFN, "logits": got.Logits})
	return fields{"parts": made}, err
}
