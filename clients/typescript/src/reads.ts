/** Reads: methods with their indices, and what comes for each of them. */

import type {
  ContributionParameters,
  EdgeParameters,
  EdgeToParameters,
  HeadScoreParameters,
  LayerLensParameters,
  LogitParameters,
  NeuronAttributionParameters,
  NeuronContributionParameters,
} from "./analyses.js";
import { InternalError, InvalidRequestError } from "./errors.js";
import { splitAtDot } from "./expected.js";
import { type Index, isParts, type Method, placeOf, READS, type ReadName } from "./methods.js";
import { fieldOf, sizeOf } from "./parameters.js";
import type { FeatureActivationsParameters, FeaturesParameters } from "./sae_analyses.js";
import type { Tensor } from "./tensor.js";

/** A method that reads a run, and its arguments. */
export type Read =
  | readonly ["tokens"]
  | readonly ["logits"]
  | readonly ["residualIn" | "residualAfterAttn" | "residualOut" | "ffnOut", layer: number]
  | readonly ["decomposedFfnOut" | "neuronActivations", batchI: number, layer: number, pos: number]
  | readonly ["attentionMatrix", batchI: number, layer: number, head: number]
  | readonly ["attentionOutput", batchI: number, layer: number, pos: number, head?: number | null]
  | readonly ["decomposedAttn", batchI: number, layer: number]
  | readonly ["layerLens", batchI: number, layer: number, parameters?: LayerLensParameters]
  | readonly ["tokenLogprobs", batchI: number]
  | readonly ["features", batchI: number, parameters?: FeaturesParameters]
  | readonly ["featureActivations", batchI: number, parameters: FeatureActivationsParameters]
  | readonly ["attentionMatrices" | "valueWeightedNorms", batchI: number, layer: number]
  | readonly ["attnContributions", batchI: number, layer: number, parameters?: ContributionParameters]
  | readonly ["contributionEdges", batchI: number, layer: number, parameters?: EdgeParameters]
  | readonly ["contributionEdgesTo", batchI: number, layer: number, parameters?: EdgeToParameters]
  | readonly ["headScores", batchI: number, layer: number, parameters?: HeadScoreParameters]
  | readonly [
      "neuronContributions",
      batchI: number,
      layer: number,
      pos: number,
      parameters: NeuronContributionParameters,
    ]
  | readonly ["logitTerms", batchI: number, pos: number, token: number, parameters?: LogitParameters]
  | readonly [
      "logitAttribution" | "sourceAttribution",
      batchI: number,
      layer: number,
      pos: number,
      token: number,
      parameters?: LogitParameters,
    ]
  | readonly [
      "neuronAttribution",
      batchI: number,
      layer: number,
      pos: number,
      token: number,
      parameters: NeuronAttributionParameters,
    ];

/** A read, checked. */
export interface CheckedRead {
  readonly name: ReadName;
  readonly indices: readonly Index[];
  /** Fields of its request besides the indices. */
  readonly fields?: Readonly<Record<string, unknown>>;
  /** Of axes whose length parameters say; undefined: that of the whole. */
  readonly sizes?: ReadonlyMap<string, number | undefined>;
}

type WithoutName = Omit<CheckedRead, "name">;

/** Under which one tensor that is the value stands among what comes for a read. */
export const WHOLE = "";

/** What comes for one read: the value under `WHOLE`, or its factors or parts under their names. */
export type Arrived = ReadonlyMap<string, Tensor>;

/** A tensor, or what is known of one, under the name in its header. */
interface Named<T> {
  readonly name: string;
  readonly tensor: T;
}

/** @throws InvalidRequestError they are no reads. */
export function checkedReads(reads: readonly Read[]): CheckedRead[] {
  if (!Array.isArray(reads)) {
    throw new InvalidRequestError('fetch takes an array of reads, as in [["residualIn", 3], ["logits"]]');
  }
  return reads.map(checkedRead);
}

/** @throws InvalidRequestError it is none. */
export function checkedRead(read: unknown): CheckedRead {
  const [name, ...indices] = Array.isArray(read) ? read : [];
  if (typeof name !== "string") {
    throw new InvalidRequestError(`a read is an array of a method's name and its arguments, got ${String(read)}`);
  }
  if (!Object.hasOwn(READS, name)) {
    throw new InvalidRequestError(`"${name}" cannot be fetched; these can: ${Object.keys(READS).sort().join(", ")}`);
  }
  const method = READS[name as ReadName];
  const isNamed = method.parameters.size > 0 || method.arguments.some((argument) => argument.startsWith("minus"));
  const last: unknown = indices.at(-1);
  const named = isNamed && typeof last === "object" && last !== null ? { ...last } : undefined;
  const plain = named === undefined ? indices : indices.slice(0, -1);
  if (plain.length > method.arguments.length) {
    throw new InvalidRequestError(`there is no ${name}(${indices.join(", ")}) to read`);
  }
  return { name: name as ReadName, ...withNamed(method, plain, named ?? {}) };
}

/** Indices, with those among the named arguments, and what else is among these. */
function withNamed(method: Method, indices: readonly Index[], named: Readonly<Record<string, unknown>>): WithoutName {
  const all = method.arguments.map((argument, i) => indices[i] ?? (named[argument] as Index));
  const fields: Record<string, unknown> = {};
  const sizes = new Map<string, number | undefined>();
  for (const name of Object.keys(named)) {
    if (!method.parameters.has(name) && !method.arguments.includes(name)) {
      throw new InvalidRequestError(`${method.header} has no parameter ${name}`, { metadata: { argument: name } });
    }
  }
  for (const [name, parameter] of method.parameters) {
    const field = fieldOf(parameter, named[name]);
    if (field !== undefined) {
      fields[name] = field;
    }
    if (parameter.sizeOf !== "") {
      sizes.set(parameter.sizeOf, sizeOf(parameter, named[name]));
    }
  }
  return { indices: method.parameters.size > 0 || Object.keys(named).length > 0 ? all : indices, fields, sizes };
}

/**
 * The tensors of a stream, value by value: each begins with the value itself, or with the first of its parts, which
 * come in their order.
 *
 * @throws InternalError they are not what was asked for.
 */
export function grouped<T = Tensor>(wanted: readonly Method[], arrived: readonly Named<T>[]): ReadonlyMap<string, T>[] {
  const groups: Map<string, T>[] = [];
  let place = -1; // of the last tensor among the parts of its value
  for (const { name, tensor } of arrived) {
    const [header, part] = splitAtDot(name);
    const underWay = wanted[groups.length - 1];
    if (part !== undefined && place >= 0 && underWay?.header === header && placeOf(underWay, part) > place) {
      place = placeOf(underWay, part);
      groups.at(-1)?.set(part, tensor);
      continue;
    }
    const next = wanted[groups.length];
    if (next?.header !== header || !canBegin(next, part)) {
      throw new InternalError(
        `the server sent ${name} after ${groups.length} of the ${wanted.length} values that were asked for`,
      );
    }
    place = part === undefined ? -1 : 0;
    groups.push(new Map([[part ?? WHOLE, tensor]]));
  }
  if (groups.length !== wanted.length) {
    throw new InternalError(`the server sent ${groups.length} values, not the ${wanted.length} that were asked for`);
  }
  groups.forEach((group, i) => {
    requireWhole(wanted[i] as Method, group);
  });
  return groups;
}

/** @throws InvalidRequestError one of them is of several tensors. */
export function requireOneTensor(reads: readonly CheckedRead[]): void {
  for (const { name } of reads) {
    if (isParts(READS[name])) {
      const parts = [...READS[name].parts.keys()].join(", ");
      throw new InvalidRequestError(
        `fetch takes reads of one tensor, and ${name} is several: ${parts}; fetchParts reads them`,
      );
    }
  }
}

function canBegin(method: Method, part: string | undefined): boolean {
  return part === undefined ? !isParts(method) : placeOf(method, part) === 0;
}

function requireWhole({ header, parts }: Method, arrived: ReadonlyMap<string, unknown>): void {
  const missing = [...parts].find(([name, { isOptional }]) => isOptional !== true && !arrived.has(name));
  if (!arrived.has(WHOLE) && missing !== undefined) {
    throw new InternalError(`the server sent ${header} without its part ${missing[0]}`);
  }
}
