/** What a server says about itself: models, how exact they are, limits, versions. */

import { requireDigest } from "./digest.js";
import { type DtypeName, dtypeOfWire } from "./dtypes.js";
import { InternalError } from "./errors.js";
import * as wire from "./gen/transparent_llm/v1/model_pb.js";
import type { DatasetResponse, ServerInfoResponse } from "./gen/transparent_llm/v1/service_pb.js";

/** Shape and name of a model. */
export interface ModelInfo {
  readonly name: string;
  /** Number of parameters, shared ones counted once. */
  readonly nParamsEstimate: number;
  readonly nLayers: number;
  /** Query heads per layer. */
  readonly nHeads: number;
  readonly dModel: number;
  /** Rows of the unembedding; can exceed what the tokenizer uses. */
  readonly dVocab: number;
}

/** Whether a model can be used at once. The first call for one that is unloaded loads it. */
export type ModelState = "loaded" | "loading" | "unloaded" | "failed";

/** One check that a model passed at load, with what was measured. */
export interface ParityCheck {
  /** What was compared, for example `logits_vs_huggingface`. */
  readonly name: string;
  /** Largest absolute difference. */
  readonly maxAbsError: number;
  /** A model over it is refused. */
  readonly tolerance: number;
}

/** A sparse autoencoder, or a transcoder, that is loaded with a model. */
export interface SaeDescription {
  /** What calls have for it. */
  readonly name: string;
  /** What it reads: KIND.LAYER or KIND.LAYER.HEAD, for example `residual_out.1`. */
  readonly site: string;
  /** What it writes; a transcoder's differs from what it reads. */
  readonly outputSite: string;
  /** As SAELens has it: `standard`, `topk`, `jumprelu`, `gated`, `transcoder` and so on. */
  readonly architecture: string;
  readonly dIn: number;
  /** How many features it has. */
  readonly dSae: number;
  readonly dOut: number;
  /** SHA-256 (hex) over its settings and weights. */
  readonly digest: string;
  /** What its weights take of memory. */
  readonly weightBytes: bigint;
}

/** Everything that can be known of a model before it runs anything. Of one that was never loaded most is 0 or empty. */
export interface ModelDescription extends ModelInfo {
  /** SHA-256 (hex) over configuration, weights and tokenizer. */
  readonly digest: string;
  /** The transformers class, for example `GPT2LMHeadModel`. */
  readonly architecture: string;
  /** Of weights and values; undefined if this client does not know it. */
  readonly dtype: DtypeName | undefined;
  /** Where it computes, for example `cpu` or `cuda:0`. */
  readonly device: string;
  /** Longest input in tokens. */
  readonly nCtx: number;
  /** Neurons of each layer, as `neuronActivations` counts them. */
  readonly dFfn: readonly number[];
  /** Whether a beginning-of-sequence token is put before every sentence. */
  readonly prependsBos: boolean;
  readonly padTokenId: number;
  readonly parity: readonly ParityCheck[];
  /** Name of an RPC -> why this model cannot answer it. */
  readonly unsupported: Readonly<Record<string, string>>;
  /** How a value is defined where a definition had to be chosen. */
  readonly conventions: Readonly<Record<string, string>>;
  readonly state: ModelState;
  /** Further names under which it is served. */
  readonly aliases: readonly string[];
  /** In words: what loading does now, why it failed, or where the model would come from. */
  readonly detail: string;
  readonly saes: readonly SaeDescription[];
}

/** What a server allows. Bytes are exact, and so bigint. */
export interface Limits {
  readonly maxTokensPerRun: bigint;
  readonly maxSentencesPerRun: bigint;
  /** Bytes of all stored runs together. */
  readonly runStoreBytes: bigint;
  /** A run that nobody has read for this long is dropped. */
  readonly runTtlSeconds: number;
  readonly maxChunkBytes: number;
  /** Calls that wait for the model at the most. */
  readonly queueLength: number;
  /** Of one answer: a tensor, or all of a fetch. 0: not known. */
  readonly maxReadBytes: bigint;
  /** Calls under way at the same time. */
  readonly maxStreams: number;
}

/** Sentences that the server's operator offers: see `RemoteTransparentLlm.dataset`. */
export interface DatasetDescription {
  readonly name: string;
  readonly nSentences: number;
}

/** The answer of `serverInfo`. */
export interface ServerInfo {
  /** Version of the schema that the server speaks, `MAJOR.MINOR`. */
  readonly apiVersion: string;
  /** Version of its software. */
  readonly serverVersion: string;
  readonly models: readonly ModelDescription[];
  readonly limits: Limits;
  /** Optional abilities, by name. */
  readonly features: readonly string[];
  /** Versions of the libraries that compute the values, by name. */
  readonly versions: Readonly<Record<string, string>>;
  /** Runs of the caller that are stored now. */
  readonly storedRuns: bigint;
  readonly storedRunBytes: bigint;
  /** What the operator offers to everyone who may call. */
  readonly datasets: readonly DatasetDescription[];
}

const MOST_SENTENCES = 1000;

const STATES: ReadonlyMap<wire.ModelState, ModelState> = new Map<wire.ModelState, ModelState>([
  [wire.ModelState.LOADED, "loaded"],
  [wire.ModelState.LOADING, "loading"],
  [wire.ModelState.UNLOADED, "unloaded"],
  [wire.ModelState.FAILED, "failed"],
]);

/** From a message; a message without it has the values of an empty one. */
export function modelInfoOf(info: wire.ModelInfo | undefined): ModelInfo {
  return {
    name: info?.name ?? "",
    nParamsEstimate: Number(info?.nParamsEstimate ?? 0n),
    nLayers: info?.nLayers ?? 0,
    nHeads: info?.nHeads ?? 0,
    dModel: info?.dModel ?? 0,
    dVocab: info?.dVocab ?? 0,
  };
}

/**
 * From a message.
 *
 * @throws InternalError a digest is none.
 */
export function serverInfoOf(response: ServerInfoResponse): ServerInfo {
  return {
    apiVersion: response.apiVersion,
    serverVersion: response.serverVersion,
    models: response.models.map(descriptionOf),
    limits: limitsOf(response.limits),
    features: response.features,
    versions: response.versions,
    storedRuns: response.storedRuns,
    storedRunBytes: response.storedRunBytes,
    datasets: response.datasets.map(({ name, nSentences }) => ({ name, nSentences })),
  };
}

/**
 * Of a data set.
 *
 * @throws InternalError a server that sends none, too many, or an empty one.
 */
export function sentencesOf({ sentences }: DatasetResponse): readonly string[] {
  if (sentences.length === 0 || sentences.length > MOST_SENTENCES || sentences.includes("")) {
    const promised = `1 to ${MOST_SENTENCES}, and none is empty`;
    throw new InternalError(`the server sent a data set of ${sentences.length} sentences; it has ${promised}`);
  }
  return sentences;
}

function descriptionOf(model: wire.ModelDescription): ModelDescription {
  const digest = model.digest && requireDigest(model.digest); // one that was never loaded has none yet
  const { architecture, device, nCtx, dFfn, prependsBos, padTokenId, conventions, aliases, detail } = model;
  return {
    ...modelInfoOf(model.info),
    ...{ digest, architecture, device, nCtx, dFfn, prependsBos, padTokenId, conventions, aliases, detail },
    dtype: dtypeOfWire(model.dtype),
    parity: model.parity.map(({ name, maxAbsError, tolerance }) => ({ name, maxAbsError, tolerance })),
    unsupported: Object.fromEntries(model.unsupported.map(({ method, why }) => [method, why])),
    state: STATES.get(model.state) ?? "loaded", // an older server tells none
    saes: model.saes.map(saeOf),
  };
}

function saeOf(sae: wire.SaeDescription): SaeDescription {
  const { name, site, outputSite, architecture, dIn, dSae, dOut, digest, weightBytes } = sae;
  return { name, site, outputSite, architecture, dIn, dSae, dOut, digest, weightBytes };
}

function limitsOf(limits: wire.Limits | undefined): Limits {
  return {
    maxTokensPerRun: limits?.maxTokensPerRun ?? 0n,
    maxSentencesPerRun: limits?.maxSentencesPerRun ?? 0n,
    runStoreBytes: limits?.runStoreBytes ?? 0n,
    runTtlSeconds: limits?.runTtlSeconds ?? 0,
    maxChunkBytes: limits?.maxChunkBytes ?? 0,
    queueLength: limits?.queueLength ?? 0,
    maxReadBytes: limits?.maxReadBytes ?? 0n,
    maxStreams: limits?.maxStreams ?? 0,
  };
}
