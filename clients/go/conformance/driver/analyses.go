package main

import (
	"bytes"
	"encoding/json"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	transparentllm "transparentllm.dev/go"
)

// named are the arguments that stand in an object at the end.
type named struct {
	MinusLayer  *int    `json:"minus_layer"`
	MinusToken  *int    `json:"minus_token"`
	Point       string  `json:"point"`
	MinusPoint  string  `json:"minus_point"`
	Normalize   string  `json:"normalize"`
	Norm        string  `json:"norm"`
	Kind        string  `json:"kind"`
	Circuit     string  `json:"circuit"`
	Positions   []int   `json:"positions"`
	Targets     []int   `json:"targets"`
	TokenIDs    []int   `json:"token_ids"`
	K           int     `json:"k"`
	BottomK     int     `json:"bottom_k"`
	WithKL      bool    `json:"with_kl"`
	Threshold   float64 `json:"threshold"`
	Renormalize bool    `json:"renormalize"`
	SAE         string  `json:"sae"`
	FeatureIDs  []int   `json:"feature_ids"`
}

// analysis is the method of that name, with its indices and what stands in the object. Its answer is a tensor, or several by name.
type analysis struct {
	indices int
	ask     func(c called, i []int, n named) (*tensor, map[string]*tensor, error)
}

var analyses = map[string]analysis{
	"layer_lens": {2, func(c called, i []int, n named) (*tensor, map[string]*tensor, error) {
		got, err := c.llm.LayerLens(c.ctx, i[0], i[1], transparentllm.LensOptions{MinusLayer: n.MinusLayer,
			Point: choice[transparentllm.ResidualPoint](n.Point), MinusPoint: choice[transparentllm.ResidualPoint](n.MinusPoint),
			Normalize: choice[transparentllm.Normalize](n.Normalize), Positions: n.Positions, K: n.K, BottomK: n.BottomK,
			TokenIDs: n.TokenIDs, WithKL: n.WithKL}, c.options...)
		if err != nil {
			return nil, nil, err
		}
		return nil, map[string]*tensor{"top_ids": got.TopIDs, "top_logits": got.TopLogits, "bottom_ids": got.BottomIDs,
			"bottom_logits": got.BottomLogits, "target_logits": got.TargetLogits, "target_ranks": got.TargetRanks,
			"logsumexp": got.LogSumExp, "entropy": got.Entropy, "kl": got.KL}, nil
	}},
	"token_logprobs": {1, func(c called, i []int, n named) (*tensor, map[string]*tensor, error) {
		got, err := c.llm.TokenLogprobs(c.ctx, i[0], c.options...)
		if err != nil {
			return nil, nil, err
		}
		return nil, map[string]*tensor{"logprobs": got.Logprobs, "ranks": got.Ranks}, nil
	}},
	"attn_contributions": {2, func(c called, i []int, n named) (*tensor, map[string]*tensor, error) {
		asked := transparentllm.ContributionOptions{Norm: choice[transparentllm.ContributionNorm](n.Norm)}
		got, err := c.llm.AttnContributions(c.ctx, i[0], i[1], asked, c.options...)
		if err != nil {
			return nil, nil, err
		}
		return nil, map[string]*tensor{"heads": got.Heads, "residual": got.Residual}, nil
	}},
	"contribution_edges": {2, func(c called, i []int, n named) (*tensor, map[string]*tensor, error) {
		got, err := c.llm.ContributionEdges(c.ctx, i[0], i[1], transparentllm.EdgeOptions{Threshold: n.Threshold,
			Renormalize: n.Renormalize, Norm: choice[transparentllm.ContributionNorm](n.Norm)}, c.options...)
		return edges(got, err)
	}},
	"contribution_edges_to": {2, func(c called, i []int, n named) (*tensor, map[string]*tensor, error) {
		got, err := c.llm.ContributionEdgesTo(c.ctx, i[0], i[1], transparentllm.EdgeToOptions{Targets: n.Targets, Threshold: n.Threshold,
			Renormalize: n.Renormalize, Norm: choice[transparentllm.ContributionNorm](n.Norm)}, c.options...)
		return edges(got, err)
	}},
	"neuron_contributions": {3, func(c called, i []int, n named) (*tensor, map[string]*tensor, error) {
		asked := transparentllm.NeuronContributionOptions{K: n.K, Norm: choice[transparentllm.ContributionNorm](n.Norm)}
		got, err := c.llm.NeuronContributions(c.ctx, i[0], i[1], i[2], asked, c.options...)
		if err != nil {
			return nil, nil, err
		}
		return nil, map[string]*tensor{"ids": got.IDs, "values": got.Values, "residual": got.Residual}, nil
	}},
	"logit_terms": {3, func(c called, i []int, n named) (*tensor, map[string]*tensor, error) {
		asked := transparentllm.LogitOptions{MinusToken: n.MinusToken}
		got, err := c.llm.LogitTerms(c.ctx, i[0], i[1], i[2], asked, c.options...)
		if err != nil {
			return nil, nil, err
		}
		return nil, map[string]*tensor{"logit": got.Logit, "embedding": got.Embedding, "layers": got.Layers,
			"norm_bias": got.NormBias, "unembed_bias": got.UnembedBias, "scale": got.Scale}, nil
	}},
	"logit_attribution": {4, func(c called, i []int, n named) (*tensor, map[string]*tensor, error) {
		asked := transparentllm.LogitOptions{MinusToken: n.MinusToken}
		got, err := c.llm.LogitAttribution(c.ctx, i[0], i[1], i[2], i[3], asked, c.options...)
		if err != nil {
			return nil, nil, err
		}
		return nil, map[string]*tensor{"heads": got.Heads, "attn_bias": got.AttnBias, "ffn": got.FFN, "ffn_bias": got.FFNBias}, nil
	}},
	"source_attribution": {4, func(c called, i []int, n named) (*tensor, map[string]*tensor, error) {
		asked := transparentllm.LogitOptions{MinusToken: n.MinusToken}
		got, err := c.llm.SourceAttribution(c.ctx, i[0], i[1], i[2], i[3], asked, c.options...)
		return got, nil, err
	}},
	"neuron_attribution": {4, func(c called, i []int, n named) (*tensor, map[string]*tensor, error) {
		asked := transparentllm.NeuronAttributionOptions{MinusToken: n.MinusToken, K: n.K}
		got, err := c.llm.NeuronAttribution(c.ctx, i[0], i[1], i[2], i[3], asked, c.options...)
		if err != nil {
			return nil, nil, err
		}
		return nil, map[string]*tensor{"ids": got.IDs, "values": got.Values, "rest": got.Rest}, nil
	}},
	"attention_matrices": {2, func(c called, i []int, n named) (*tensor, map[string]*tensor, error) {
		got, err := c.llm.AttentionMatrices(c.ctx, i[0], i[1], c.options...)
		return got, nil, err
	}},
	"head_scores": {2, func(c called, i []int, n named) (*tensor, map[string]*tensor, error) {
		got, err := c.llm.HeadScores(c.ctx, i[0], i[1], choice[transparentllm.HeadScore](n.Kind), c.options...)
		return got, nil, err
	}},
	"features": {1, func(c called, i []int, n named) (*tensor, map[string]*tensor, error) {
		got, err := c.llm.Features(c.ctx, i[0], transparentllm.FeatureOptions{SAE: n.SAE, Positions: n.Positions, K: n.K}, c.options...)
		if err != nil {
			return nil, nil, err
		}
		return nil, map[string]*tensor{"ids": got.IDs, "activations": got.Activations, "active": got.Active,
			"error_norm": got.ErrorNorm, "explained": got.Explained}, nil
	}},
	"feature_activations": {1, func(c called, i []int, n named) (*tensor, map[string]*tensor, error) {
		asked := transparentllm.FeatureActivationOptions{SAE: n.SAE, FeatureIDs: n.FeatureIDs, Positions: n.Positions}
		got, err := c.llm.FeatureActivations(c.ctx, i[0], asked, c.options...)
		return got, nil, err
	}},
	"head_weights": {2, func(c called, i []int, n named) (*tensor, map[string]*tensor, error) {
		got, err := c.llm.HeadWeights(c.ctx, i[0], i[1], c.options...)
		if err != nil {
			return nil, nil, err
		}
		return nil, map[string]*tensor{"q": got.Q, "k": got.K, "v": got.V, "o": got.O}, nil
	}},
	"composition_scores": {0, func(c called, i []int, n named) (*tensor, map[string]*tensor, error) {
		got, err := c.llm.CompositionScores(c.ctx, choice[transparentllm.CompositionKind](n.Kind), c.options...)
		return got, nil, err
	}},
	"copying_scores": {0, func(c called, i []int, n named) (*tensor, map[string]*tensor, error) {
		got, err := c.llm.CopyingScores(c.ctx, choice[transparentllm.HeadCircuit](n.Circuit), c.options...)
		return got, nil, err
	}},
	"value_weighted_norms": {2, func(c called, i []int, n named) (*tensor, map[string]*tensor, error) {
		got, err := c.llm.ValueWeightedNorms(c.ctx, i[0], i[1], c.options...)
		return got, nil, err
	}},
}

func (c called) analysis(method analysis) (fields, error) {
	plain, object := split(c.args)
	given, err := indices(plain)
	if err != nil {
		return nil, err
	}
	for len(given) < method.indices {
		given = append(given, 0)
	}
	var asked named
	if object != nil {
		if err := json.Unmarshal(object, &asked); err != nil {
			return nil, err
		}
	}
	whole, parts, err := method.ask(c, given, asked)
	if err != nil {
		return nil, err
	}
	if whole != nil {
		made, err := encoded(whole)
		return fields{"tensor": made}, err
	}
	made, err := encodedParts(parts)
	return fields{"parts": made}, err
}

func (c called) fetchParts() (fields, error) {
	reads, err := c.reads()
	if err != nil {
		return nil, err
	}
	got, err := c.llm.FetchParts(c.ctx, reads, c.options...)
	if err != nil {
		return nil, err
	}
	all := []fields{}
	for _, parts := range got {
		made, err := encodedParts(parts)
		if err != nil {
			return nil, err
		}
		all = append(all, made)
	}
	return fields{"values": all}, nil
}

func encodedParts(parts map[string]*tensor) (fields, error) {
	made := fields{}
	for name, part := range parts {
		if part == nil {
			continue
		}
		held, err := encoded(part)
		if err != nil {
			return nil, err
		}
		made[name] = held
	}
	return made, nil
}

// split parts arguments from the object at their end; nil if there is none.
func split(args []json.RawMessage) ([]json.RawMessage, json.RawMessage) {
	if last := len(args) - 1; last >= 0 && bytes.HasPrefix(args[last], []byte("{")) {
		return args[:last], args[last]
	}
	return args, nil
}

// edges are those of the contribution graph by the names of their tensors.
func edges(got *transparentllm.ContributionEdgesParts, err error) (*tensor, map[string]*tensor, error) {
	if err != nil {
		return nil, nil, err
	}
	return nil, map[string]*tensor{"attention": got.Attention, "attention_residual": got.AttentionResidual, "ffn": got.FFN,
		"ffn_residual": got.FFNResidual}, nil
}

// parameters are those of an object, as a Read takes them, and the index among them; nil if it is not there.
func parameters(object json.RawMessage) (transparentllm.Parameters, *int, error) {
	var given map[string]json.RawMessage
	if err := json.Unmarshal(object, &given); err != nil {
		return nil, nil, err
	}
	var asked named
	if err := json.Unmarshal(object, &asked); err != nil {
		return nil, nil, err
	}
	all := transparentllm.Parameters{"point": asked.Point, "minus_point": asked.MinusPoint, "normalize": asked.Normalize,
		"norm": asked.Norm, "kind": asked.Kind, "circuit": asked.Circuit, "positions": asked.Positions, "targets": asked.Targets, "token_ids": asked.TokenIDs, "k": asked.K,
		"bottom_k": asked.BottomK, "with_kl": asked.WithKL, "threshold": asked.Threshold, "renormalize": asked.Renormalize, "sae": asked.SAE,
		"feature_ids": asked.FeatureIDs}
	for name := range all {
		if _, isGiven := given[name]; !isGiven {
			delete(all, name)
		}
	}
	if asked.MinusLayer != nil {
		return all, asked.MinusLayer, nil
	}
	return all, asked.MinusToken, nil
}

// choice is the value of an enum that is called so: the one with number 0 for none, and for what is none of its names one that it has not.
func choice[E interface {
	~int32
	protoreflect.Enum
}](name string) E {
	const unknown = 99
	var zero E
	values := zero.Descriptor().Values()
	for i := 0; i < values.Len() && name != ""; i++ {
		if strings.HasSuffix(string(values.Get(i).Name()), "_"+strings.ToUpper(name)) {
			return E(values.Get(i).Number())
		}
	}
	if name == "" {
		return zero
	}
	return unknown
}
