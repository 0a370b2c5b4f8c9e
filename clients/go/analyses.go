package transparentllm

import "context"

// LayerLensParts is what LayerLens answers.
type LayerLensParts struct {
	TopIDs       *Tensor // [pos rank] I64
	TopLogits    *Tensor // [pos rank]
	BottomIDs    *Tensor // [pos bottom_rank] I64
	BottomLogits *Tensor // [pos bottom_rank]
	TargetLogits *Tensor // [pos token]
	TargetRanks  *Tensor // [pos token] I64; 0 is the largest logit
	LogSumExp    *Tensor // [pos]; a logit less this is a log-probability
	Entropy      *Tensor // [pos] nats
	KL           *Tensor // [pos] nats; nil unless it was asked for
}

// LayerLens reads the logit lens: what the residual stream of a row at one place of the model says of the next token.
func (c *Client) LayerLens(ctx context.Context, batch, layer int, asked LensOptions,
	options ...ReadOption) (*LayerLensParts, error) {
	came, err := c.readParts(ctx, LayerLens(batch, layer, asked), options)
	if err != nil {
		return nil, err
	}
	return &LayerLensParts{
		TopIDs: came["top_ids"], TopLogits: came["top_logits"], BottomIDs: came["bottom_ids"],
		BottomLogits: came["bottom_logits"], TargetLogits: came["target_logits"], TargetRanks: came["target_ranks"],
		LogSumExp: came["logsumexp"], Entropy: came["entropy"], KL: came["kl"],
	}, nil
}

// TokenLogprobsParts is what TokenLogprobs answers.
type TokenLogprobsParts struct {
	Logprobs *Tensor // [pos]; NaN where no token follows
	Ranks    *Tensor // [pos] I64; 0 is the most likely, -1 where no token follows
}

// TokenLogprobs reads the log-probability and the rank that the model gives to the token that follows each position.
func (c *Client) TokenLogprobs(ctx context.Context, batch int, options ...ReadOption) (*TokenLogprobsParts, error) {
	came, err := c.readParts(ctx, TokenLogprobs(batch), options)
	if err != nil {
		return nil, err
	}
	return &TokenLogprobsParts{Logprobs: came["logprobs"], Ranks: came["ranks"]}, nil
}

// AttnContributionsParts is what AttnContributions answers.
type AttnContributionsParts struct {
	Heads    *Tensor // [target source head]
	Residual *Tensor // [target]
}

// AttnContributions reads what part of the residual stream after attention each source gave through each head, and what was
// there before.
func (c *Client) AttnContributions(ctx context.Context, batch, layer int, asked ContributionOptions,
	options ...ReadOption) (*AttnContributionsParts, error) {
	came, err := c.readParts(ctx, AttnContributions(batch, layer, asked), options)
	if err != nil {
		return nil, err
	}
	return &AttnContributionsParts{Heads: came["heads"], Residual: came["residual"]}, nil
}

// ContributionEdgesParts is what ContributionEdges and ContributionEdgesTo answer.
type ContributionEdgesParts struct {
	Attention         *Tensor // [target source]
	AttentionResidual *Tensor // [target]
	FFN               *Tensor // [pos]; of ContributionEdgesTo [target], as the next one
	FFNResidual       *Tensor // [pos]
}

// ContributionEdges reads the edges of one layer of the contribution graph.
func (c *Client) ContributionEdges(ctx context.Context, batch, layer int, asked EdgeOptions,
	options ...ReadOption) (*ContributionEdgesParts, error) {
	return c.contributionEdges(ctx, ContributionEdges(batch, layer, asked), options)
}

// ContributionEdgesTo reads those of ContributionEdges that lead to some positions, for the work of these alone.
func (c *Client) ContributionEdgesTo(ctx context.Context, batch, layer int, asked EdgeToOptions,
	options ...ReadOption) (*ContributionEdgesParts, error) {
	return c.contributionEdges(ctx, ContributionEdgesTo(batch, layer, asked), options)
}

func (c *Client) contributionEdges(ctx context.Context, read Read, options []ReadOption) (*ContributionEdgesParts, error) {
	came, err := c.readParts(ctx, read, options)
	if err != nil {
		return nil, err
	}
	return &ContributionEdgesParts{
		Attention: came["attention"], AttentionResidual: came["attention_residual"], FFN: came["ffn"],
		FFNResidual: came["ffn_residual"],
	}, nil
}

// NeuronContributionsParts is what NeuronContributions answers.
type NeuronContributionsParts struct {
	IDs      *Tensor // [rank] I64
	Values   *Tensor // [rank]
	Residual *Tensor // a scalar: what part was there before them
}

// NeuronContributions reads the neurons that contribute most to the residual stream at one position.
func (c *Client) NeuronContributions(ctx context.Context, batch, layer, pos int, asked NeuronContributionOptions,
	options ...ReadOption) (*NeuronContributionsParts, error) {
	came, err := c.readParts(ctx, NeuronContributions(batch, layer, pos, asked), options)
	if err != nil {
		return nil, err
	}
	return &NeuronContributionsParts{IDs: came["ids"], Values: came["values"], Residual: came["residual"]}, nil
}

// LogitTermsParts is what LogitTerms answers.
type LogitTermsParts struct {
	Logit       *Tensor // a scalar: the sum of all terms
	Embedding   *Tensor // a scalar
	Layers      *Tensor // [layer]
	NormBias    *Tensor // a scalar
	UnembedBias *Tensor // a scalar
	Scale       *Tensor // a scalar: the divisor of the final norm, no term
}

// LogitTerms reads a logit before any soft cap, and what it is the sum of.
func (c *Client) LogitTerms(ctx context.Context, batch, pos, token int, asked LogitOptions,
	options ...ReadOption) (*LogitTermsParts, error) {
	came, err := c.readParts(ctx, LogitTerms(batch, pos, token, asked), options)
	if err != nil {
		return nil, err
	}
	return &LogitTermsParts{
		Logit: came["logit"], Embedding: came["embedding"], Layers: came["layers"], NormBias: came["norm_bias"],
		UnembedBias: came["unembed_bias"], Scale: came["scale"],
	}, nil
}

// LogitAttributionParts is what LogitAttribution answers.
type LogitAttributionParts struct {
	Heads    *Tensor // [head]
	AttnBias *Tensor // a scalar
	FFN      *Tensor // a scalar
	FFNBias  *Tensor // a scalar, a part of FFN
}

// LogitAttribution reads the terms of a logit that the parts of a layer gave.
func (c *Client) LogitAttribution(ctx context.Context, batch, layer, pos, token int, asked LogitOptions,
	options ...ReadOption) (*LogitAttributionParts, error) {
	came, err := c.readParts(ctx, LogitAttribution(batch, layer, pos, token, asked), options)
	if err != nil {
		return nil, err
	}
	return &LogitAttributionParts{
		Heads: came["heads"], AttnBias: came["attn_bias"], FFN: came["ffn"], FFNBias: came["ffn_bias"],
	}, nil
}

// SourceAttribution reads the terms of a logit that each source position gave through each head of a layer. [head source]
func (c *Client) SourceAttribution(ctx context.Context, batch, layer, pos, token int, asked LogitOptions,
	options ...ReadOption) (*Tensor, error) {
	return c.read(ctx, SourceAttribution(batch, layer, pos, token, asked), options)
}

// NeuronAttributionParts is what NeuronAttribution answers.
type NeuronAttributionParts struct {
	IDs    *Tensor // [rank] I64
	Values *Tensor // [rank]
	Rest   *Tensor // a scalar: the sum of all others
}

// NeuronAttribution reads the largest terms of a logit that single neurons of a layer gave.
func (c *Client) NeuronAttribution(ctx context.Context, batch, layer, pos, token int, asked NeuronAttributionOptions,
	options ...ReadOption) (*NeuronAttributionParts, error) {
	came, err := c.readParts(ctx, NeuronAttribution(batch, layer, pos, token, asked), options)
	if err != nil {
		return nil, err
	}
	return &NeuronAttributionParts{IDs: came["ids"], Values: came["values"], Rest: came["rest"]}, nil
}

// AttentionMatrices reads the attention probabilities of all heads of a layer. [head query_pos key_pos]
func (c *Client) AttentionMatrices(ctx context.Context, batch, layer int, options ...ReadOption) (*Tensor, error) {
	return c.read(ctx, AttentionMatrices(batch, layer), options)
}

// HeadScores reads how much each head of a layer attends in one way, as a mean over the positions of a row that can. [head]
func (c *Client) HeadScores(ctx context.Context, batch, layer int, kind HeadScore, options ...ReadOption) (*Tensor, error) {
	return c.read(ctx, HeadScores(batch, layer, kind), options)
}

// ValueWeightedNorms reads the length of what each source gave each target through each head. [head target source]
func (c *Client) ValueWeightedNorms(ctx context.Context, batch, layer int, options ...ReadOption) (*Tensor, error) {
	return c.read(ctx, ValueWeightedNorms(batch, layer), options)
}

// FeaturesParts is what Features answers. A padded position has NaN, and -1 for features and counts.
type FeaturesParts struct {
	IDs         *Tensor // [pos rank] I64; in falling order of activation, -1 where fewer are active
	Activations *Tensor // [pos rank]
	Active      *Tensor // [pos] I64; how many features are over 0
	ErrorNorm   *Tensor // [pos]; the length of what the features do not account for
	Explained   *Tensor // [pos]; share of variance explained
}

// Features reads the features of a sparse autoencoder that are most active at positions of a row, computed of the run's value of
// its site. ServerInfo says which a model has.
//
// Errors: those of all reads; ErrInvalidRequest for one that the model does not have, or that has fewer features than K;
// ErrNotSupported where the model has none.
func (c *Client) Features(ctx context.Context, batch int, asked FeatureOptions, options ...ReadOption) (*FeaturesParts, error) {
	came, err := c.readParts(ctx, Features(batch, asked), options)
	if err != nil {
		return nil, err
	}
	return &FeaturesParts{IDs: came["ids"], Activations: came["activations"], Active: came["active"],
		ErrorNorm: came["error_norm"], Explained: came["explained"]}, nil
}

// FeatureActivations reads activations of chosen features of a sparse autoencoder at positions of a row, NaN at padded ones.
// [pos feature]
//
// Errors: those of Features; ErrIndexOutOfRange for a feature that it does not have.
func (c *Client) FeatureActivations(ctx context.Context, batch int, asked FeatureActivationOptions,
	options ...ReadOption) (*Tensor, error) {
	return c.read(ctx, FeatureActivations(batch, asked), options)
}
