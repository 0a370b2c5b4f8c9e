/** Reads of a run: what is asked for, and what becomes of it when it comes. */

import { create, type DescMessage, type MessageInitShape } from "@bufbuild/protobuf";
import type { Calls, TensorRequest } from "./calls.js";
import { Descriptions, lengthsOf } from "./descriptions.js";
import { wireOfFloating } from "./dtypes.js";
import { InternalError, NotSupportedError } from "./errors.js";
import { type Expectation, Expected, requireOwnSizes } from "./expected.js";
import { attnProduct, type Factors, ffnProduct } from "./factors.js";
import {
  type FetchItem,
  FetchItemSchema,
  FetchRequestSchema,
  PlanRequestSchema,
  TransparentLlmService,
} from "./gen/transparent_llm/v1/service_pb.js";
import { Encoding, type TensorOptions, TensorOptionsSchema } from "./gen/transparent_llm/v1/tensor_pb.js";
import type { Differentiation, Gradients, GradientsOptions } from "./gradients.js";
import type { RunIdOf } from "./interventions/vector.js";
import { copied, type KeptValues } from "./kept_values.js";
import { hasIntegers, indexFields, isParts, type Method, READS, valueAxes } from "./methods.js";
import type { ReadOptions } from "./options.js";
import { type PlannedRead, plannedReads } from "./plan.js";
import { keysOf, needsModel } from "./read_keys.js";
import { type Arrived, type CheckedRead, grouped, WHOLE } from "./reads.js";
import type { Run } from "./run.js";
import type { Scope } from "./scope.js";
import { slicesToWire } from "./slices.js";
import type { Tensor } from "./tensor.js";
import { Weights } from "./weights.js";

/** Each has two items, of which a server takes some thousands. */
const READS_PER_PLAN = 2000;

/** Reads for a client and its copies. */
export class Reader {
  readonly #calls: Calls;
  readonly #kept: KeptValues;
  readonly #weights: Weights;
  readonly #descriptions: Descriptions;

  constructor(calls: Calls, kept: KeptValues) {
    this.#calls = calls;
    this.#kept = kept;
    this.#weights = new Weights(calls);
    this.#descriptions = new Descriptions(calls);
  }

  /** One value: its tensor under `WHOLE`, or its parts. It belongs to the caller, who may write to it. */
  async read(run: Run, read: CheckedRead, options: ReadOptions, scope: Scope): Promise<Arrived> {
    const keys = await this.#keys(run, read, options, scope);
    const kept = this.#kept.find(run, keys);
    if (kept !== undefined) {
      return this.#value(run, read, kept, true, scope);
    }
    const wire = await this.#options(run, read, options, scope);
    const arrived = await this.#ask(run, read, wire, options, scope);
    return this.#value(run, read, arrived, this.#keep(run, keys, arrived), scope);
  }

  /** Many values, in their order; those that are not kept come in one stream. None need no call. */
  async readMany(run: Run, reads: readonly CheckedRead[], options: ReadOptions, scope: Scope): Promise<Arrived[]> {
    const keys: (readonly string[])[] = [];
    for (const read of reads) {
      keys.push(await this.#keys(run, read, options, scope));
    }
    const kept = keys.map((each) => this.#kept.find(run, each));
    const missing = [...reads.keys()].filter((i) => kept[i] === undefined);
    const fetched = await this.#fetch(
      run,
      missing.map((i) => reads[i] as CheckedRead),
      options,
      scope,
    );
    const arrived = new Map(missing.map((i, place) => [i, fetched[place] as Arrived]));
    const values: Arrived[] = [];
    for (const [i, read] of reads.entries()) {
      const held = kept[i] ?? (arrived.get(i) as Arrived);
      const isKept = kept[i] !== undefined || this.#keep(run, keys[i] ?? [], held);
      values.push(await this.#value(run, read, held, isKept, scope));
    }
    return values;
  }

  /** What comes for reads, in one stream. None need no call. */
  async #fetch(run: Run, reads: readonly CheckedRead[], options: ReadOptions, scope: Scope): Promise<Arrived[]> {
    if (reads.length === 0) {
      return [];
    }
    const wires = await this.#allOptions(run, reads, options, scope);
    const items = reads.map((read, i) => item(read, wires[i] as TensorOptions));
    const request = create(FetchRequestSchema, { runId: run.id, items });
    const { fetch } = TransparentLlmService.method;
    const expectations = reads.map((read, i) => this.#expectation(run, read, wires[i], options));
    const expected = new Expected(expectations);
    const tensors = await this.#calls.tensors(fetch, request, expected, scope, run.key, options.onProgress);
    const arrived = grouped(
      reads.map(({ name }) => READS[name]),
      tensors,
    );
    arrived.forEach((each, i) => {
      requireOwnSizes(expectations[i] as Expectation, each);
      requireAsked(READS[(reads[i] as CheckedRead).name], wires[i] as TensorOptions, each);
    });
    return arrived;
  }

  /** By which a value may be kept; none where nothing is. */
  async #keys(run: Run, read: CheckedRead, options: ReadOptions, scope: Scope): Promise<readonly string[]> {
    if (!this.#kept.isOn) {
      return [];
    }
    const { modelDigest } = run;
    const known = this.#descriptions.known(modelDigest);
    const model = known ?? (needsModel(read) ? await this.#descriptions.meant(modelDigest, scope) : undefined);
    return keysOf(run, read, options, model);
  }

  #keep(run: Run, [key]: readonly string[], arrived: Arrived): boolean {
    return key !== undefined && this.#kept.put(run, key, arrived);
  }

  /**
   * What the values are, and what would be sent for each.
   *
   * @throws InternalError the answer is not of these reads.
   */
  async plan(run: Run, reads: readonly CheckedRead[], options: ReadOptions, scope: Scope): Promise<PlannedRead[]> {
    const planned: PlannedRead[] = [];
    for (let start = 0; start < reads.length; start += READS_PER_PLAN) {
      planned.push(...(await this.#plan(run, reads.slice(start, start + READS_PER_PLAN), options, scope)));
    }
    return planned;
  }

  async #plan(run: Run, reads: readonly CheckedRead[], options: ReadOptions, scope: Scope): Promise<PlannedRead[]> {
    const whole = reads.map(({ name }) => wireOfRead(READS[name], options));
    const wires = [...whole, ...(await this.#allOptions(run, reads, options, scope))];
    const twice = [...reads, ...reads];
    const items = twice.map((read, i) => item(read, wires[i] as TensorOptions));
    const request = create(PlanRequestSchema, { runId: run.id, items });
    const answer = await this.#calls.unary(TransparentLlmService.method.plan, request, scope, run.key);
    return plannedReads(
      answer,
      reads,
      twice.map((read, i) => this.#expectation(run, read, wires[i], options)),
    );
  }

  /** A value of the weights of heads: of the model with this digest or, if it is empty, of the one that is served. */
  async ofWeights(
    method: Method,
    fields: object,
    digest: string,
    options: ReadOptions,
    scope: Scope,
  ): Promise<Arrived> {
    const model = await this.#descriptions.meant(digest, scope);
    const request = message(method.rpc.input, {
      ...{ ...fields, model: this.#calls.config.model, modelDigest: model?.digest ?? digest },
      options: wireOfRead(method, options),
    });
    const expected = new Expected([{ method, options, lengths: lengthsOf(model) }]);
    const tensors = await this.#calls.tensors(method.rpc, request, expected, scope, "", options.onProgress);
    const [arrived] = grouped([method], tensors);
    return arrived as Arrived;
  }

  /** Gradients of a run, which take from those that `runIdOf` names. */
  async gradients(
    run: Run,
    asked: Differentiation,
    runIdOf: RunIdOf,
    { onProgress }: GradientsOptions,
    scope: Scope,
  ): Promise<Gradients> {
    const expected = asked.expected(run, await this.#descriptions.meant(run.modelDigest, scope));
    const { gradients } = TransparentLlmService.method;
    const request = asked.request(run.id, runIdOf);
    const arrived = await this.#calls.tensors(gradients, request, expected, scope, run.key, onProgress);
    return asked.answered(expected.inOrder(arrived));
  }

  async #ask(run: Run, read: CheckedRead, wire: TensorOptions, options: ReadOptions, scope: Scope): Promise<Arrived> {
    const { rpc } = READS[read.name];
    const request = message(rpc.input, {
      runId: run.id,
      ...indexFields(READS[read.name], read.indices),
      ...read.fields,
      options: wire,
    });
    const expected = new Expected([this.#expectation(run, read, wire, options)]);
    const tensors = await this.#calls.tensors(rpc, request, expected, scope, run.key, options.onProgress);
    const [arrived] = grouped([READS[read.name]], tensors) as [Arrived];
    requireAsked(READS[read.name], wire, arrived);
    return arrived;
  }

  #expectation(run: Run, read: CheckedRead, wire: TensorOptions | undefined, options: ReadOptions): Expectation {
    const lengths = lengthsOf(this.#descriptions.known(run.modelDigest));
    const isFactored = wire?.encoding === Encoding.FACTORED;
    return { method: READS[read.name], options, run, lengths, isFactored, sizes: [read.sizes ?? new Map()] };
  }

  async #allOptions(
    run: Run,
    reads: readonly CheckedRead[],
    options: ReadOptions,
    scope: Scope,
  ): Promise<TensorOptions[]> {
    const wires: TensorOptions[] = [];
    for (const read of reads) {
      wires.push(await this.#options(run, read, options, scope));
    }
    return wires;
  }

  async #options(run: Run, read: CheckedRead, options: ReadOptions, scope: Scope): Promise<TensorOptions> {
    const wire = wireOfRead(READS[read.name], options);
    if (wire.slices.length === 0 && options.dtype === undefined && (await this.#multiplies(run, read, scope))) {
      wire.encoding = Encoding.FACTORED;
    }
    return wire;
  }

  /** Whether a value is best multiplied here. */
  async #multiplies(run: Run, { name, indices }: CheckedRead, scope: Scope): Promise<boolean> {
    const method = READS[name];
    if (method.parts.size === 0 || isParts(method)) {
      return false;
    }
    if (method.weights === "" || indices.length < method.arguments.length) {
      return method.weights === "";
    }
    const model = await this.#descriptions.of(run.modelDigest, scope);
    return model !== undefined && this.#weights.keeps(model, indices[1] ?? -1);
  }

  /** What the caller gets of what came: in memory of its own, where that is kept. */
  async #value(run: Run, read: CheckedRead, arrived: Arrived, isKept: boolean, scope: Scope): Promise<Arrived> {
    if (arrived.has(WHOLE) || isParts(READS[read.name])) {
      return isKept ? copied(arrived) : arrived;
    }
    return new Map([[WHOLE, await this.#product(run, read, arrived, scope)]]);
  }

  async #product(run: Run, read: CheckedRead, factors: Factors, scope: Scope): Promise<Tensor> {
    const { maxBytes } = this.#calls.config;
    if (READS[read.name].weights === "") {
      return attnProduct(factors, maxBytes, scope);
    }
    const model = await this.#descriptions.of(run.modelDigest, scope);
    if (model === undefined) {
      throw new NotSupportedError("the server that had this run's model is gone; run it again");
    }
    return ffnProduct(factors, await this.#weights.layer(model, read.indices[1] ?? -1, scope), maxBytes, scope);
  }
}

/** @throws InternalError factors came that were not asked for. */
function requireAsked(method: Method, wire: TensorOptions, arrived: Arrived): void {
  if (!arrived.has(WHOLE) && !isParts(method) && wire.encoding !== Encoding.FACTORED) {
    throw new InternalError(`the server sent factors of ${method.header}, which were not asked for`);
  }
}

function wireOfRead(method: Method, options: ReadOptions): TensorOptions {
  return readOptionsToWire(options, valueAxes(method), !hasIntegers(method));
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

function item({ name, indices, fields }: CheckedRead, options: TensorOptions): FetchItem {
  const value = message(READS[name].rpc.input, { ...indexFields(READS[name], indices), ...fields, options });
  return create(FetchItemSchema, { read: { case: name, value } } as MessageInitShape<typeof FetchItemSchema>);
}
