/** The table: how each method that answers a tensor maps to the wire. */

import { type DescMessage, type DescMethodServerStreaming, getOption, hasOption } from "@bufbuild/protobuf";
import { type DtypeName, dtypeOfWire, isFloating } from "./dtypes.js";
import { IndexOutOfRangeError } from "./errors.js";
import { index, method, parameter } from "./gen/transparent_llm/v1/method_pb.js";
import { type FetchItem, FetchItemSchema, TransparentLlmService } from "./gen/transparent_llm/v1/service_pb.js";
import type { TensorChunkSchema } from "./gen/transparent_llm/v1/tensor_pb.js";
import { type Parameter, parameterOf } from "./parameters.js";

const RPCS = TransparentLlmService.method;

/** An RPC that answers tensors. */
export type TensorRpc = DescMethodServerStreaming<DescMessage, typeof TensorChunkSchema>;

/** One tensor of several that are a value together. */
export interface Part {
  readonly dims: readonly string[];
  /** Undefined: that of the value. */
  readonly dtype?: DtypeName | undefined;
  /** It may be absent; then it may also be a scalar, if it is floating. */
  readonly isOptional?: boolean;
  /** Its first axis may be shorter than that axis is. */
  readonly isSparse?: boolean;
}

/** One row: a method and the RPC that moves it. */
export interface Method {
  readonly rpc: TensorRpc;
  /** In the headers of its tensors: `residual_in`. */
  readonly header: string;
  /** Index arguments in their order, under the names of the request. */
  readonly arguments: readonly string[];
  /** The axis that each of them goes along. */
  readonly axes: readonly string[];
  /** Names of the result's axes. */
  readonly dims: readonly string[];
  /** Of its elements. Undefined: a floating type. */
  readonly dtype: DtypeName | undefined;
  /** The factors that it can come as, in order, by their names; without dims the tensors that it is. */
  readonly parts: ReadonlyMap<string, Part>;
  /** The method whose value is a factor too; empty: none is. */
  readonly weights: string;
  /** Arguments that are no indices, by their names in the request. */
  readonly parameters: ReadonlyMap<string, Parameter>;
}

/** The row that stands in service.proto, at an RPC and at the indices of its request. */
function methodOf(rpc: TensorRpc): Method {
  const spec = getOption(rpc, method);
  const parts = spec.parts.map(({ name, dims, dtype, optional, sparse }): [string, Part] => [
    name,
    { dims: axesOf(dims), dtype: dtypeOfWire(dtype), isOptional: optional, isSparse: sparse },
  ]);
  return {
    rpc,
    header: snakeCase(rpc.localName),
    arguments: rpc.input.fields.filter((field) => hasOption(field, index)).map((field) => field.localName),
    axes: rpc.input.fields.filter((field) => hasOption(field, index)).map((field) => getOption(field, index).axis),
    dims: axesOf(spec.dims),
    dtype: dtypeOfWire(spec.dtype),
    parts: new Map(parts),
    weights: spec.weights,
    parameters: new Map(
      rpc.input.fields
        .filter((field) => hasOption(field, parameter))
        .map((field) => [field.localName, parameterOf(field, getOption(field, parameter))]),
    ),
  };
}

function axesOf(dims: string): string[] {
  return dims.split(" ").filter((axis) => axis !== "");
}

/** The name of a method that reads a run. */
export type ReadName = Exclude<FetchItem["read"]["case"], undefined>;

/** Those that read a run, by the names of the class: what can be fetched. */
export const READS = Object.fromEntries(
  FetchItemSchema.fields.map(({ localName }) => [localName, methodOf(RPCS[localName as ReadName])]),
) as Readonly<Record<ReadName, Method>>;

/** Those that read the model alone. */
export const MODEL_READS = {
  unembed: methodOf(RPCS.unembed),
  neuronOutput: methodOf(RPCS.neuronOutput),
  neuronOutputs: methodOf(RPCS.neuronOutputs),
} as const;

/** Those that read the weights of heads. */
export const WEIGHT_READS = {
  headWeights: methodOf(RPCS.headWeights),
  compositionScores: methodOf(RPCS.compositionScores),
  copyingScores: methodOf(RPCS.copyingScores),
} as const;

/** Names of all axes that a value can have. */
export const AXES: ReadonlySet<string> = new Set(
  [...Object.values(READS), ...Object.values(MODEL_READS), ...Object.values(WEIGHT_READS)].flatMap(valueAxes),
);

/** Whether its elements have no floating type. */
export function hasIntegers({ dtype }: Method): boolean {
  return dtype !== undefined && !isFloating(dtype);
}

/** Whether its value is several tensors, which always come. */
export function isParts({ dims, parts }: Method): boolean {
  return dims.length === 0 && parts.size > 0;
}

/** Names of the axes of its value; of several tensors those of all of them. */
export function valueAxes(method: Method): readonly string[] {
  return isParts(method) ? [...new Set([...method.parts.values()].flatMap(({ dims }) => dims))] : method.dims;
}

/** The place of a part among those of a value; -1 if it has none of that name. */
export function placeOf({ parts }: Method, part: string): number {
  return [...parts.keys()].indexOf(part);
}

/** An index of a request; undefined and null are left out, and the server says which may be. */
export type Index = number | null | undefined;

/**
 * The fields of a request that hold its indices.
 *
 * @throws IndexOutOfRangeError one of them is no integer of 32 bits.
 */
export function indexFields(of: Method, indices: readonly Index[]): Record<string, number> {
  const fields: Record<string, number> = {};
  of.arguments.forEach((name, position) => {
    const index = indices[position];
    if (index !== undefined && index !== null) {
      fields[name] = requireInt32(snakeCase(name), index);
    }
  });
  return fields;
}

function requireInt32(axis: string, index: number): number {
  if (!Number.isInteger(index) || index < -(2 ** 31) || index >= 2 ** 31) {
    throw new IndexOutOfRangeError(`${axis} ${String(index)} is out of range: no axis has such an index`, {
      metadata: { axis, got: String(index) },
    });
  }
  return index;
}

function snakeCase(camelCase: string): string {
  return camelCase.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
