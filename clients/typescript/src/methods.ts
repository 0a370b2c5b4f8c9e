/** The table: how each method that answers a tensor maps to the wire. */

import type { DescMessage, DescMethodServerStreaming } from "@bufbuild/protobuf";
import { IndexOutOfRangeError } from "./errors.js";
import { TransparentLlmService } from "./gen/transparent_llm/v1/service_pb.js";
import type { TensorChunkSchema } from "./gen/transparent_llm/v1/tensor_pb.js";

const RPCS = TransparentLlmService.method;

/** An RPC that answers tensors. */
export type TensorRpc = DescMethodServerStreaming<DescMessage, typeof TensorChunkSchema>;

/** One row: a method and the RPC that moves it. */
export interface Method {
  readonly rpc: TensorRpc;
  /** In the headers of its tensors: `residual_in`. */
  readonly header: string;
  /** Index arguments in their order, under the names of the request. */
  readonly arguments: readonly string[];
  /** Names of the result's axes. */
  readonly dims: readonly string[];
}

function method(rpc: TensorRpc, args: readonly string[], dims: readonly string[]): Method {
  return { rpc, header: snakeCase(rpc.localName), arguments: args, dims };
}

const RESIDUAL = ["batch", "pos", "d_model"];
const POSITION = ["batchI", "layer", "pos"];

/** Those that read a run, by the names of the class: what can be fetched. */
export const READS = {
  tokens: method(RPCS.tokens, [], ["batch", "pos"]),
  logits: method(RPCS.logits, [], ["batch", "pos", "d_vocab"]),
  residualIn: method(RPCS.residualIn, ["layer"], RESIDUAL),
  residualAfterAttn: method(RPCS.residualAfterAttn, ["layer"], RESIDUAL),
  residualOut: method(RPCS.residualOut, ["layer"], RESIDUAL),
  ffnOut: method(RPCS.ffnOut, ["layer"], RESIDUAL),
  decomposedFfnOut: method(RPCS.decomposedFfnOut, POSITION, ["hidden", "d_model"]),
  neuronActivations: method(RPCS.neuronActivations, POSITION, ["d_ffn"]),
  attentionMatrix: method(RPCS.attentionMatrix, ["batchI", "layer", "head"], ["query_pos", "key_pos"]),
  attentionOutput: method(RPCS.attentionOutput, [...POSITION, "head"], ["d_model"]),
  decomposedAttn: method(RPCS.decomposedAttn, ["batchI", "layer"], ["target", "source", "head", "d_model"]),
} as const;

/** The tensors with which the factors of a value begin. */
export const FIRST_FACTORS: ReadonlySet<string> = new Set([
  "decomposed_attn.pattern",
  "decomposed_ffn_out.activations",
]);

/** The name of a method that reads a run. */
export type ReadName = keyof typeof READS;

/** Those that read the model alone. */
export const MODEL_READS = {
  unembed: method(RPCS.unembed, [], ["vocab"]),
  neuronOutput: method(RPCS.neuronOutput, ["layer", "neuron"], ["d_model"]),
  neuronOutputs: method(RPCS.neuronOutputs, ["layer"], ["d_ffn", "d_model"]),
} as const;

/** Names of all axes that a value can have. */
export const AXES: ReadonlySet<string> = new Set(
  [...Object.values(READS), ...Object.values(MODEL_READS)].flatMap((each) => each.dims),
);

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
