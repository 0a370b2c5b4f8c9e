/**
 * Run sentences through a language model on another machine, then ask for everything inside: residual stream,
 * attention, neurons, logits.
 *
 * `connect` is in `transparent-llm/node` and in `transparent-llm/web`, which have all of this too.
 */

export type {
  AttnContributions,
  ContributionEdges,
  ContributionEdgesTo,
  ContributionNorm,
  ContributionParameters,
  EdgeParameters,
  EdgeToParameters,
  HeadScoreKind,
  HeadScoreParameters,
  LayerLens,
  LayerLensParameters,
  LogitAttribution,
  LogitParameters,
  LogitTerms,
  NeuronAttribution,
  NeuronAttributionParameters,
  NeuronContributionParameters,
  NeuronContributions,
  Normalize,
  ResidualPoint,
  TokenLogprobs,
} from "./analyses.js";
export type { ChatMessage } from "./chat.js";
export type {
  CompositionKind,
  CompositionParameters,
  CopyingParameters,
  HeadCircuit,
  HeadWeights,
} from "./circuits.js";
export { type Connection, RemoteTransparentLlm } from "./client.js";
export type { CompareOptions, RowComparison } from "./comparison.js";
export { ContributionGraph, type GraphEdge } from "./contribution_graph.js";
export type { DtypeName } from "./dtypes.js";
export * from "./errors.js";
export type { Finished, GenerateOptions, GenerationStep, NextToken } from "./generation.js";
export { type EdgeScores, type GradientEdges, type ScoredEdge, topEdges } from "./gradient_edges.js";
export type { GradientPath } from "./gradient_path.js";
export type {
  FrozenPart,
  GradientForm,
  GradientSite,
  Gradients,
  GradientsOptions,
  GradientsPlan,
  IntegratedGradients,
} from "./gradients.js";
export { GraphRow, type GrowingGraphOptions, growingGraph } from "./growing_graph.js";
export type { Edit, EditEffect, Site, Vector, Where } from "./interventions.js";
export { type GraphParameters, type LayerEdges, LayerShares, MIN_THRESHOLD } from "./layer_shares.js";
export type { CallOptions, ClientOptions, Progress, ReadOptions, RunOptions, TextOptions } from "./options.js";
export type { PlannedRead, PlannedTensor } from "./plan.js";
export type { Read } from "./reads.js";
export type { TokenIds } from "./run_input.js";
export type {
  FeatureActivationsParameters,
  FeaturesParameters,
  SaeFeatures,
  SaeParameters,
} from "./sae_analyses.js";
export type {
  DatasetDescription,
  Limits,
  ModelDescription,
  ModelInfo,
  ModelState,
  ParityCheck,
  SaeDescription,
  ServerInfo,
} from "./server_info.js";
export type { Slice, Slices } from "./slices.js";
export { Tensor, type TensorData, type TensorParts } from "./tensor.js";
export type { TopTokensOptions, VectorTokens } from "./vector_tokens.js";
export type { TokenAt } from "./words.js";
