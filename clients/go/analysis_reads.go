package transparentllm

import (
	pb "transparentllm.dev/go/transparent_llm/v1"
)

// ResidualPoint is a place in a layer where the residual stream is read.
type ResidualPoint = pb.ResidualPoint

// The places. Default: PointOut.
const (
	PointOut       = pb.ResidualPoint_RESIDUAL_POINT_OUT        // as it leaves the layer
	PointIn        = pb.ResidualPoint_RESIDUAL_POINT_IN         // as it enters the layer
	PointAfterAttn = pb.ResidualPoint_RESIDUAL_POINT_AFTER_ATTN // after attention's output was added
)

// Normalize is what is done to a vector before it is unembedded.
type Normalize = pb.Normalize

// What can be done. Default: NormalizeOwn.
const (
	NormalizeOwn    = pb.Normalize_NORMALIZE_OWN    // the model's last step as it is
	NormalizeFrozen = pb.Normalize_NORMALIZE_FROZEN // the final norm with the scale of this position of the run, without its bias, and no soft cap
	NormalizeNone   = pb.Normalize_NORMALIZE_NONE   // nothing: the plain product with the unembedding matrix
)

// ContributionNorm is how a part is compared with the whole that it is a part of.
type ContributionNorm = pb.ContributionNorm

// The norms. Default: NormL1.
const (
	NormL1 = pb.ContributionNorm_CONTRIBUTION_NORM_L1 // the sum of absolute differences
	NormL2 = pb.ContributionNorm_CONTRIBUTION_NORM_L2 // the Euclidean distance
)

// HeadScore is what a head is scored for.
type HeadScore = pb.HeadScoreKind

// The scores. Default: ScoreInduction.
const (
	ScoreInduction = pb.HeadScoreKind_HEAD_SCORE_KIND_INDUCTION // attention to the token after an earlier occurrence of the same token
	ScorePrevious  = pb.HeadScoreKind_HEAD_SCORE_KIND_PREVIOUS  // attention to the token before
	ScoreDuplicate = pb.HeadScoreKind_HEAD_SCORE_KIND_DUPLICATE // attention to earlier occurrences of the same token
	ScoreFirst     = pb.HeadScoreKind_HEAD_SCORE_KIND_FIRST     // attention to the first position
	ScoreSelf      = pb.HeadScoreKind_HEAD_SCORE_KIND_SELF      // attention to the position itself
	ScoreEntropy   = pb.HeadScoreKind_HEAD_SCORE_KIND_ENTROPY   // entropy of the attention of a position, in nats
)

// LensOptions of LayerLens. The zero value: statistics only, of all positions, as the stream leaves the layer.
type LensOptions struct {
	MinusLayer *int          // with a layer here, the difference to the stream there is looked at
	Point      ResidualPoint // in the layer
	MinusPoint ResidualPoint // in the layer MinusLayer
	Normalize  Normalize
	Positions  []int // of the row, negative ones from its last token; none: all
	K          int   // how many of the tokens with the largest logits
	BottomK    int   // how many of those with the smallest
	TokenIDs   []int // tokens whose logits and ranks are wanted anyway
	WithKL     bool  // compare with the model's output
}

// ContributionOptions of AttnContributions.
type ContributionOptions struct {
	Norm ContributionNorm
}

// EdgeOptions of ContributionEdges.
type EdgeOptions struct {
	Threshold   float64 // what is not larger counts as nothing: of each head and source by itself, and of the stream
	Renormalize bool    // divide by what is left
	Norm        ContributionNorm
}

// EdgeToOptions of ContributionEdgesTo.
type EdgeToOptions struct {
	Targets     []int   // positions of the row, negative ones from its last token; none: all
	Threshold   float64 // these three as in EdgeOptions
	Renormalize bool
	Norm        ContributionNorm
}

// NeuronContributionOptions of NeuronContributions.
type NeuronContributionOptions struct {
	K    int // how many neurons, those that contribute most; at least 1
	Norm ContributionNorm
}

// LogitOptions of the analyses that take a logit apart.
type LogitOptions struct {
	MinusToken *int // with a token here, the difference of the two logits is taken apart
}

// NeuronAttributionOptions of NeuronAttribution.
type NeuronAttributionOptions struct {
	MinusToken *int // as in LogitOptions
	K          int  // how many neurons, those with the largest terms by absolute value; at least 1
}

// FeatureOptions of Features.
type FeatureOptions struct {
	SAE       string // name of the sparse autoencoder; empty: the only one that the model has
	Positions []int  // of the row, negative ones from its last token; none: all
	K         int    // how many features of each position, those that are most active
}

// FeatureActivationOptions of FeatureActivations.
type FeatureActivationOptions struct {
	SAE        string // as in FeatureOptions
	FeatureIDs []int  // the features that are wanted; negative ones count from the end
	Positions  []int  // as in FeatureOptions
}

// withOptional is the indices with one more, if there is one.
func withOptional(last *int, indices ...int) []int {
	if last == nil {
		return indices
	}
	return append(indices, *last)
}

// LayerLens reads the logit lens: what the residual stream of a row at one place of the model says of the next token.
func LayerLens(batch, layer int, asked LensOptions) Read {
	return Read{method: methods["layer_lens"], indices: withOptional(asked.MinusLayer, batch, layer),
		parameters: Parameters{"point": asked.Point, "minus_point": asked.MinusPoint,
			"normalize": asked.Normalize, "positions": asked.Positions, "k": asked.K, "bottom_k": asked.BottomK, "token_ids": asked.TokenIDs,
			"with_kl": asked.WithKL}}
}

// TokenLogprobs reads the log-probability and the rank that the model gives to the token that follows each position.
func TokenLogprobs(batch int) Read {
	return Read{method: methods["token_logprobs"], indices: []int{batch}}
}

// AttnContributions reads what part of the residual stream after attention each source gave through each head, and what was
// there before.
func AttnContributions(batch, layer int, asked ContributionOptions) Read {
	return Read{method: methods["attn_contributions"], indices: []int{batch, layer}, parameters: Parameters{"norm": asked.Norm}}
}

// ContributionEdges reads the edges of one layer of the contribution graph.
func ContributionEdges(batch, layer int, asked EdgeOptions) Read {
	return Read{method: methods["contribution_edges"], indices: []int{batch, layer}, parameters: Parameters{
		"threshold": asked.Threshold, "renormalize": asked.Renormalize, "norm": asked.Norm}}
}

// ContributionEdgesTo reads those of ContributionEdges that lead to some positions, for the work of these alone.
func ContributionEdgesTo(batch, layer int, asked EdgeToOptions) Read {
	return Read{method: methods["contribution_edges_to"], indices: []int{batch, layer}, parameters: Parameters{
		"targets": asked.Targets, "threshold": asked.Threshold, "renormalize": asked.Renormalize, "norm": asked.Norm}}
}

// NeuronContributions reads the neurons that contribute most to the residual stream at one position.
func NeuronContributions(batch, layer, pos int, asked NeuronContributionOptions) Read {
	return Read{method: methods["neuron_contributions"], indices: []int{batch, layer, pos},
		parameters: Parameters{"k": asked.K, "norm": asked.Norm}}
}

// LogitTerms reads a logit before any soft cap, and what it is the sum of.
func LogitTerms(batch, pos, token int, asked LogitOptions) Read {
	return Read{method: methods["logit_terms"], indices: withOptional(asked.MinusToken, batch, pos, token)}
}

// LogitAttribution reads the terms of a logit that the parts of a layer gave.
func LogitAttribution(batch, layer, pos, token int, asked LogitOptions) Read {
	return Read{method: methods["logit_attribution"], indices: withOptional(asked.MinusToken, batch, layer, pos, token)}
}

// SourceAttribution reads the terms of a logit that each source position gave through each head of a layer. [head source]
func SourceAttribution(batch, layer, pos, token int, asked LogitOptions) Read {
	return Read{method: methods["source_attribution"], indices: withOptional(asked.MinusToken, batch, layer, pos, token)}
}

// NeuronAttribution reads the largest terms of a logit that single neurons of a layer gave.
func NeuronAttribution(batch, layer, pos, token int, asked NeuronAttributionOptions) Read {
	return Read{method: methods["neuron_attribution"], indices: withOptional(asked.MinusToken, batch, layer, pos, token),
		parameters: Parameters{"k": asked.K}}
}

// AttentionMatrices reads the attention probabilities of all heads of a layer. [head query_pos key_pos]
func AttentionMatrices(batch, layer int) Read {
	return Read{method: methods["attention_matrices"], indices: []int{batch, layer}}
}

// HeadScores reads how much each head of a layer attends in one way, as a mean over the positions of a row that can. [head]
func HeadScores(batch, layer int, kind HeadScore) Read {
	return Read{method: methods["head_scores"], indices: []int{batch, layer}, parameters: Parameters{"kind": kind}}
}

// ValueWeightedNorms reads the length of what each source gave each target through each head. [head target source]
func ValueWeightedNorms(batch, layer int) Read {
	return Read{method: methods["value_weighted_norms"], indices: []int{batch, layer}}
}

// Features reads the features of a sparse autoencoder that are most active at positions of a row.
func Features(batch int, asked FeatureOptions) Read {
	return Read{method: methods["features"], indices: []int{batch},
		parameters: Parameters{"sae": asked.SAE, "positions": asked.Positions, "k": asked.K}}
}

// FeatureActivations reads activations of chosen features of a sparse autoencoder at positions of a row. [pos feature]
func FeatureActivations(batch int, asked FeatureActivationOptions) Read {
	return Read{method: methods["feature_activations"], indices: []int{batch},
		parameters: Parameters{"sae": asked.SAE, "feature_ids": asked.FeatureIDs, "positions": asked.Positions}}
}
