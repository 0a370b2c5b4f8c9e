/** Analyses: answers that the server computes next to the weights, each of one layer or one row of a run. */

import type { ReadOptions } from "./options.js";
import { named, parted, whole } from "./parts.js";
import type { Arrived } from "./reads.js";
import type { Tensor } from "./tensor.js";

/** Where in a layer the residual stream is read. Default: "out", as it leaves the layer. */
export type ResidualPoint = "out" | "in" | "after_attn";

/**
 * What is done to a vector before it is unembedded. "own": the model's last step as it is, which is the default. "frozen":
 * the final norm with the scale of this position of the run, without its bias, and no soft cap. "none": the plain product.
 */
export type Normalize = "own" | "frozen" | "none";

/** How a part is compared with the whole: the sum of absolute differences, which is the default, or the Euclidean distance. */
export type ContributionNorm = "l1" | "l2";

/** What a head is scored for. Default: "induction". */
export type HeadScoreKind = "induction" | "previous" | "duplicate" | "first" | "self" | "entropy";

/** What `layerLens` is asked for. */
export interface LayerLensParameters {
  /** With a layer here, the difference to the stream there is looked at. */
  readonly minusLayer?: number | undefined;
  readonly point?: ResidualPoint | undefined;
  readonly minusPoint?: ResidualPoint | undefined;
  readonly normalize?: Normalize | undefined;
  /** Positions of the row, negative ones from its last token. Default: all. */
  readonly positions?: readonly number[] | undefined;
  /** How many of the tokens with the largest logits. Default: 0. */
  readonly k?: number | undefined;
  /** How many of those with the smallest. Default: 0. */
  readonly bottomK?: number | undefined;
  /** Tokens whose logits and ranks are wanted anyway. */
  readonly tokenIds?: readonly number[] | undefined;
  /** Whether to compare with the model's output. */
  readonly withKl?: boolean | undefined;
}

export interface ContributionParameters {
  readonly norm?: ContributionNorm | undefined;
}

/** What `contributionEdges` is asked for. */
export interface EdgeParameters extends ContributionParameters {
  /** What is not larger counts as nothing: of each head and source by itself, and of the residual stream. Default: 0. */
  readonly threshold?: number | undefined;
  /** Divide by what is left. */
  readonly renormalize?: boolean | undefined;
}

/** What `contributionEdgesTo` is asked for. */
export interface EdgeToParameters extends EdgeParameters {
  /** Positions of the row, negative ones from its last token. Default: all. */
  readonly targets?: readonly number[] | undefined;
}

/** What `neuronContributions` is asked for. */
export interface NeuronContributionParameters extends ContributionParameters {
  /** How many neurons, those that contribute most: at least 1. */
  readonly k: number;
}

/** What the analyses are asked for that take a logit apart. */
export interface LogitParameters {
  /** With a token here, the difference of the two logits is taken apart. */
  readonly minusToken?: number | undefined;
}

/** What `neuronAttribution` is asked for. */
export interface NeuronAttributionParameters extends LogitParameters {
  /** How many neurons, those with the largest terms by absolute value: at least 1. */
  readonly k: number;
}

export interface HeadScoreParameters {
  readonly kind?: HeadScoreKind | undefined;
}

/** What `layerLens` answers. */
export interface LayerLens {
  /** [pos rank] I64 */
  readonly topIds: Tensor;
  /** [pos rank] */
  readonly topLogits: Tensor;
  /** [pos bottom_rank] I64 */
  readonly bottomIds: Tensor;
  /** [pos bottom_rank] */
  readonly bottomLogits: Tensor;
  /** [pos token] */
  readonly targetLogits: Tensor;
  /** Places in the sorted vocabulary, 0 for the largest logit. [pos token] I64 */
  readonly targetRanks: Tensor;
  /** A logit less this is a log-probability. [pos] */
  readonly logsumexp: Tensor;
  /** In nats. [pos] */
  readonly entropy: Tensor;
  /** KL(model's output || lens) in nats, if it was asked for. [pos] */
  readonly kl?: Tensor | undefined;
}

/** What `tokenLogprobs` answers. */
export interface TokenLogprobs {
  /** NaN where no token follows. [pos] */
  readonly logprobs: Tensor;
  /** 0 is the most likely; -1 where no token follows. [pos] I64 */
  readonly ranks: Tensor;
}

/** What `attnContributions` answers. */
export interface AttnContributions {
  /** [target source head] */
  readonly heads: Tensor;
  /** What was there before. [target] */
  readonly residual: Tensor;
}

/** What `contributionEdges` answers. */
export interface ContributionEdges {
  /** [target source] */
  readonly attention: Tensor;
  /** [target] */
  readonly attentionResidual: Tensor;
  /** [pos] */
  readonly ffn: Tensor;
  /** [pos] */
  readonly ffnResidual: Tensor;
}

/** What `contributionEdgesTo` answers: `attention` is [target source], the others are [target]. */
export type ContributionEdgesTo = ContributionEdges;

/** What `neuronContributions` answers. */
export interface NeuronContributions {
  /** [rank] I64 */
  readonly ids: Tensor;
  /** [rank] */
  readonly values: Tensor;
  /** What was there before the neurons. A scalar. */
  readonly residual: Tensor;
}

/** What `logitTerms` answers: scalars, and `layers`. */
export interface LogitTerms {
  /** The sum of all terms, before any soft cap. */
  readonly logit: Tensor;
  readonly embedding: Tensor;
  /** [layer] */
  readonly layers: Tensor;
  readonly normBias: Tensor;
  readonly unembedBias: Tensor;
  /** The divisor of the final norm, which is no term. */
  readonly scale: Tensor;
}

/** What `logitAttribution` answers: scalars, and `heads`. */
export interface LogitAttribution {
  /** [head] */
  readonly heads: Tensor;
  readonly attnBias: Tensor;
  readonly ffn: Tensor;
  /** A part of `ffn`. */
  readonly ffnBias: Tensor;
}

/** What `neuronAttribution` answers. */
export interface NeuronAttribution {
  /** [rank] I64 */
  readonly ids: Tensor;
  /** [rank] */
  readonly values: Tensor;
  /** The sum of all others. A scalar. */
  readonly rest: Tensor;
}

/** A model that can be asked for analyses of its current run. They throw what reads throw, and `InvalidRequestError` for
 * what they are asked for. */
export abstract class Analyses {
  /** What comes for a read. */
  protected abstract analysed(read: readonly [string, ...unknown[]], options: ReadOptions): Promise<Arrived>;

  /** The logit lens: what the residual stream of a row at one place of the model says of the next token. */
  async layerLens(batchI: number, layer: number, options: LayerLensParameters & ReadOptions = {}): Promise<LayerLens> {
    const [parameters, ofRead] = parted(options, "point", "minusPoint", "normalize", "positions", "k", "bottomK");
    const [others, rest] = parted(ofRead, "minusLayer", "tokenIds", "withKl");
    const came = await this.analysed(["layerLens", batchI, layer, { ...parameters, ...others }], rest);
    const [logits, ids] = [
      ["topLogits", "bottomLogits", "targetLogits"],
      ["topIds", "bottomIds", "targetRanks"],
    ] as const;
    return { ...named(came, ...logits, ...ids, "logsumexp", "entropy"), kl: came.get("kl") };
  }

  /** The log-probability and the rank that the model gives to the token that follows each position. */
  async tokenLogprobs(batchI: number, options: ReadOptions = {}): Promise<TokenLogprobs> {
    return named(await this.analysed(["tokenLogprobs", batchI], options), "logprobs", "ranks");
  }

  /** What part of the residual stream after attention each source gave through each head, and what was there before. */
  async attnContributions(
    batchI: number,
    layer: number,
    options: ContributionParameters & ReadOptions = {},
  ): Promise<AttnContributions> {
    const [parameters, rest] = parted(options, "norm");
    return named(await this.analysed(["attnContributions", batchI, layer, parameters], rest), "heads", "residual");
  }

  /** The edges of one layer of the contribution graph. */
  async contributionEdges(
    batchI: number,
    layer: number,
    options: EdgeParameters & ReadOptions = {},
  ): Promise<ContributionEdges> {
    const [parameters, rest] = parted(options, "threshold", "renormalize", "norm");
    const came = await this.analysed(["contributionEdges", batchI, layer, parameters], rest);
    return named(came, "attention", "attentionResidual", "ffn", "ffnResidual");
  }

  /** Those of `contributionEdges` that lead to some positions, for the work of these alone. */
  async contributionEdgesTo(
    batchI: number,
    layer: number,
    options: EdgeToParameters & ReadOptions = {},
  ): Promise<ContributionEdgesTo> {
    const [parameters, rest] = parted(options, "targets", "threshold", "renormalize", "norm");
    const came = await this.analysed(["contributionEdgesTo", batchI, layer, parameters], rest);
    return named(came, "attention", "attentionResidual", "ffn", "ffnResidual");
  }

  /** The neurons that contribute most to the residual stream at one position. */
  async neuronContributions(
    batchI: number,
    layer: number,
    pos: number,
    options: NeuronContributionParameters & ReadOptions,
  ): Promise<NeuronContributions> {
    const [parameters, rest] = parted(options, "k", "norm");
    const came = await this.analysed(["neuronContributions", batchI, layer, pos, parameters], rest);
    return named(came, "ids", "values", "residual");
  }

  /** A logit before any soft cap, and what it is the sum of. */
  async logitTerms(
    batchI: number,
    pos: number,
    token: number,
    options: LogitParameters & ReadOptions = {},
  ): Promise<LogitTerms> {
    const [parameters, rest] = parted(options, "minusToken");
    const came = await this.analysed(["logitTerms", batchI, pos, token, parameters], rest);
    return named(came, "logit", "embedding", "layers", "normBias", "unembedBias", "scale");
  }

  /** The terms of a logit that the parts of a layer gave. */
  async logitAttribution(
    batchI: number,
    layer: number,
    pos: number,
    token: number,
    options: LogitParameters & ReadOptions = {},
  ): Promise<LogitAttribution> {
    const [parameters, rest] = parted(options, "minusToken");
    const came = await this.analysed(["logitAttribution", batchI, layer, pos, token, parameters], rest);
    return named(came, "heads", "attnBias", "ffn", "ffnBias");
  }

  /** The terms of a logit that each source position gave through each head of a layer. [head source] */
  async sourceAttribution(
    batchI: number,
    layer: number,
    pos: number,
    token: number,
    options: LogitParameters & ReadOptions = {},
  ): Promise<Tensor> {
    const [parameters, rest] = parted(options, "minusToken");
    return whole(await this.analysed(["sourceAttribution", batchI, layer, pos, token, parameters], rest));
  }

  /** The largest terms of a logit that single neurons of a layer gave. */
  async neuronAttribution(
    batchI: number,
    layer: number,
    pos: number,
    token: number,
    options: NeuronAttributionParameters & ReadOptions,
  ): Promise<NeuronAttribution> {
    const [parameters, rest] = parted(options, "minusToken", "k");
    const came = await this.analysed(["neuronAttribution", batchI, layer, pos, token, parameters], rest);
    return named(came, "ids", "values", "rest");
  }

  /** The attention probabilities of all heads of a layer. [head query_pos key_pos] */
  async attentionMatrices(batchI: number, layer: number, options: ReadOptions = {}): Promise<Tensor> {
    return whole(await this.analysed(["attentionMatrices", batchI, layer], options));
  }

  /** How much each head of a layer attends in one way, as a mean over the positions of a row that can. [head] */
  async headScores(batchI: number, layer: number, options: HeadScoreParameters & ReadOptions = {}): Promise<Tensor> {
    const [parameters, rest] = parted(options, "kind");
    return whole(await this.analysed(["headScores", batchI, layer, parameters], rest));
  }

  /** The length of what each source gave each target through each head. [head target source] */
  async valueWeightedNorms(batchI: number, layer: number, options: ReadOptions = {}): Promise<Tensor> {
    return whole(await this.analysed(["valueWeightedNorms", batchI, layer], options));
  }
}
