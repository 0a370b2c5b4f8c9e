/** Reads of a run: what is asked for, and what becomes of it when it comes. */

import { create, type DescMessage, type MessageInitShape } from "@bufbuild/protobuf";
import type { Calls, TensorRequest } from "./calls.js";
import { isFloating, wireOfFloating } from "./dtypes.js";
import { InternalError, TooLargeError } from "./errors.js";
import { attnProduct, type Factors, ffnProduct } from "./factors.js";
import {
  type FetchItem,
  FetchItemSchema,
  FetchRequestSchema,
  TransparentLlmService,
} from "./gen/transparent_llm/v1/service_pb.js";
import { Encoding, type TensorOptions, TensorOptionsSchema } from "./gen/transparent_llm/v1/tensor_pb.js";
import { indexFields, type Method, READS } from "./methods.js";
import type { ReadOptions } from "./options.js";
import { type Arrived, type CheckedRead, grouped } from "./reads.js";
import type { Run } from "./run.js";
import type { Scope } from "./scope.js";
import { slicesToWire } from "./slices.js";
import type { Tensor } from "./tensor.js";
import { Weights } from "./weights.js";

/** Reads for a client and its copies. */
export class Reader {
  readonly #calls: Calls;
  readonly #weights: Weights;

  constructor(calls: Calls) {
    this.#calls = calls;
    this.#weights = new Weights(calls);
  }

  /** One value. */
  async read(run: Run, read: CheckedRead, options: ReadOptions, scope: Scope): Promise<Tensor> {
    const wire = this.#options(run, read, options);
    const arrived = await this.#ask(run, read, wire, options, scope);
    return this.#value(run, read, wire, arrived, options, scope);
  }

  /** Many values in one stream, in their order. None need no call. */
  async readMany(run: Run, reads: readonly CheckedRead[], options: ReadOptions, scope: Scope): Promise<Tensor[]> {
    if (reads.length === 0) {
      return [];
    }
    const wires = reads.map((read) => this.#options(run, read, options));
    const items = reads.map((read, i) => item(read, wires[i] as TensorOptions));
    const request = create(FetchRequestSchema, { runId: run.id, items });
    const { fetch } = TransparentLlmService.method;
    const arrived = grouped(reads, await this.#calls.tensors(fetch, request, scope, run.key, options.onProgress));
    const values: Tensor[] = [];
    for (const [i, each] of arrived.entries()) {
      values.push(await this.#value(run, reads[i] as CheckedRead, wires[i] as TensorOptions, each, options, scope));
    }
    return values;
  }

  async #ask(run: Run, read: CheckedRead, wire: TensorOptions, options: ReadOptions, scope: Scope): Promise<Arrived> {
    const { rpc } = READS[read.name];
    const request = message(rpc.input, {
      runId: run.id,
      ...indexFields(READS[read.name], read.indices),
      options: wire,
    });
    const [arrived] = grouped([read], await this.#calls.tensors(rpc, request, scope, run.key, options.onProgress));
    return arrived as Arrived;
  }

  #options(run: Run, read: CheckedRead, options: ReadOptions): TensorOptions {
    const { dims } = READS[read.name];
    const wire = readOptionsToWire(options, dims, read.name !== "tokens");
    if (wire.slices.length === 0 && options.dtype === undefined && this.#multiplies(run, read)) {
      wire.encoding = Encoding.FACTORED;
    }
    return wire;
  }

  /** Whether a value is best multiplied here. */
  #multiplies(run: Run, { name, indices }: CheckedRead): boolean {
    return (
      name === "decomposedAttn" ||
      (name === "decomposedFfnOut" && this.#weights.keeps(run.modelDigest, indices[1] ?? 0))
    );
  }

  async #value(
    run: Run,
    read: CheckedRead,
    wire: TensorOptions,
    arrived: Arrived,
    options: ReadOptions,
    scope: Scope,
  ): Promise<Tensor> {
    if ("value" in arrived) {
      requireDtype(READS[read.name], arrived.value, options);
      return arrived.value;
    }
    const { maxBytes } = this.#calls.config;
    if (wire.encoding !== Encoding.FACTORED) {
      throw new InternalError(`the server sent factors of ${READS[read.name].header}, which were not asked for`);
    }
    if (read.name === "decomposedAttn") {
      return attnProduct(arrived.factors, maxBytes);
    }
    return this.#ffnValue(run, read, arrived.factors, options, scope);
  }

  async #ffnValue(run: Run, read: CheckedRead, factors: Factors, options: ReadOptions, scope: Scope): Promise<Tensor> {
    let weights: Tensor;
    try {
      weights = await this.#weights.layer(run.modelDigest, read.indices[1] ?? 0, scope);
    } catch (error) {
      if (error instanceof TooLargeError) {
        return this.read(run, read, options, scope); // the product as it is, as these weights are not asked for again
      }
      throw error;
    }
    return ffnProduct(factors, weights, this.#calls.config.maxBytes);
  }
}

/** Slices and element type of a request for a value with these axes. */
export function readOptionsToWire(options: ReadOptions, dims: readonly string[], isFloating = true): TensorOptions {
  return create(TensorOptionsSchema, {
    slices: slicesToWire(options.slices ?? {}, dims),
    ...(options.dtype !== undefined && isFloating && { dtype: wireOfFloating(options.dtype) }),
  });
}

/**
 * A request of any kind, of fields that the table of methods names.
 *
 * The schema decides what is right: a field that it does not have would be a bug in that table.
 */
export function message(schema: DescMessage, fields: object): TensorRequest {
  return create(schema, fields as MessageInitShape<DescMessage>);
}

/** @throws InternalError a floating value came in another type than was asked for. */
export function requireDtype(of: Method, value: Tensor, { dtype }: ReadOptions): void {
  if (dtype !== undefined && isFloating(value.dtype) && value.dtype !== dtype) {
    throw new InternalError(`the server sent ${of.header} as ${value.dtype}, asked for ${dtype}`);
  }
}

function item({ name, indices }: CheckedRead, options: TensorOptions): FetchItem {
  const value = message(READS[name].rpc.input, { ...indexFields(READS[name], indices), options });
  return create(FetchItemSchema, { read: { case: name, value } } as MessageInitShape<typeof FetchItemSchema>);
}
