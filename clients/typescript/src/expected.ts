/** What is known of the tensors of a stream before they come, so that whatever else is sent is refused by its header. */

import { dtypeOfWire, isFloating } from "./dtypes.js";
import { InternalError } from "./errors.js";
import type { TensorHeader } from "./gen/transparent_llm/v1/tensor_pb.js";
import { quoted } from "./legible.js";
import { isParts, type Method, type Part, placeOf } from "./methods.js";
import type { ReadOptions } from "./options.js";
import type { Run } from "./run.js";
import { countOf, sliceOf } from "./slices.js";
import type { Tensor } from "./tensor.js";

/** Axes that are as long as the run, and which of its two they are. */
const OF_RUN: ReadonlyMap<string, 0 | 1> = new Map([
  ["batch", 0],
  ["pos", 1],
  ["query_pos", 1],
  ["key_pos", 1],
  ["target", 1],
  ["source", 1],
]);

/** The axis before those of a method that was asked of several vectors at once. */
const ROWS = "n";

/** What is known of one value. */
export interface Expectation {
  readonly method: Method;
  readonly options: ReadOptions;
  /** Undefined for a value of the model alone. */
  readonly run?: Run | undefined;
  /** Of axes of the model, as far as they are known. */
  readonly lengths?: ReadonlyMap<string, number> | undefined;
  /** Whether its factors will do. */
  readonly isFactored?: boolean | undefined;
  /** Vectors that it was asked of at once. Undefined: one, without an axis of its own. */
  readonly rows?: number | undefined;
  /** Of axes whose length parameters say, in each read of the stream that asks for it. Undefined: that of the whole. */
  readonly sizes?: readonly ReadonlyMap<string, number | undefined>[] | undefined;
}

/** What a stream is held to. */
export interface Expecting {
  /** How many tensors there can be. */
  readonly most: number;
  /** @throws InternalError a tensor with this header cannot come. */
  check(header: TensorHeader): void;
  /** Whether a tensor is a further part of the value that the one before it is of. */
  continues(before: string, name: string): boolean;
}

/** Of all values of a stream. */
export class Expected implements Expecting {
  /** How many tensors there can be. */
  readonly most: number;
  readonly #byHeader = new Map<string, Expectation>();

  constructor(expectations: readonly Expectation[]) {
    let most = 0;
    for (const each of expectations) {
      const { header } = each.method;
      const before = this.#byHeader.get(header);
      const isFactored = each.isFactored || before?.isFactored;
      this.#byHeader.set(header, { ...each, isFactored, sizes: together(before?.sizes ?? [], each.sizes ?? []) });
      most += each.isFactored || isParts(each.method) ? each.method.parts.size : 1;
    }
    this.most = most;
  }

  /** @throws InternalError the tensor was not asked for, or has other axes, another length or another type than it must. */
  check(header: TensorHeader): void {
    const [method, name] = splitAtDot(header.name);
    const expectation = this.#byHeader.get(method);
    if (expectation === undefined || !canCome(expectation, name !== undefined)) {
      throw new InternalError(`the server sent ${quoted(header.name)}, which was not asked for`);
    }
    const part = name === undefined ? undefined : expectation.method.parts.get(name);
    if (name !== undefined && part === undefined) {
      throw new InternalError(`the server sent ${quoted(header.name)}, which is not a part of ${method}`);
    }
    const dims = part?.dims ?? dimsOf(expectation);
    const isScalar = part !== undefined && canBeScalar(part) && header.dims.length === 0;
    if (!isScalar && (header.dims.length !== dims.length || header.dims.some((name, axis) => name !== dims[axis]))) {
      const axes = header.dims.map(quoted).join(", ");
      throw new InternalError(`the server sent ${header.name} with the axes ${axes}, not ${dims.join(", ")}`);
    }
    requireDtype(header, part, expectation);
    requireLengths(header, part, expectation);
  }

  /** Whether a tensor is a further part of the value that the one before it is of. */
  continues(before: string, name: string): boolean {
    const [[last, ofLast], [header, part]] = [splitAtDot(before), splitAtDot(name)];
    const method = this.#byHeader.get(header)?.method;
    return (
      method !== undefined &&
      isParts(method) &&
      last === header &&
      ofLast !== undefined &&
      part !== undefined &&
      placeOf(method, part) > 0
    );
  }
}

/** Method and part of a tensor's name; without a dot it is the value itself. */
export function splitAtDot(name: string): [string, string | undefined] {
  const dot = name.indexOf(".");
  return dot < 0 ? [name, undefined] : [name.slice(0, dot), name.slice(dot + 1)];
}

function canCome({ method, isFactored }: Expectation, asPart: boolean): boolean {
  return asPart ? isFactored === true || isParts(method) : !isParts(method);
}

function dimsOf({ method, rows }: Expectation): readonly string[] {
  return rows === undefined ? method.dims : [ROWS, ...method.dims];
}

function canBeScalar({ isOptional, dtype }: Part): boolean {
  return isOptional === true && dtype !== undefined && isFloating(dtype);
}

function requireDtype(header: TensorHeader, part: Part | undefined, { method, options }: Expectation): void {
  const dtype = dtypeOfWire(header.dtype);
  const wanted = part?.dtype ?? method.dtype ?? options.dtype;
  if (wanted === undefined && dtype !== undefined && isFloating(dtype)) {
    return;
  }
  if (wanted === undefined || dtype !== wanted) {
    throw new InternalError(
      `the server sent ${header.name} as ${dtype ?? header.dtype}, not as ${wanted ?? "a floating type"}`,
    );
  }
}

function requireLengths(header: TensorHeader, part: Part | undefined, expectation: Expectation): void {
  header.dims.forEach((axis, i) => {
    const sent = header.shape[i] as bigint;
    const lengths = lengthsOf(axis, expectation);
    if (lengths.length === 0 || lengths.includes(sent)) {
      return;
    }
    const wanted = lengths.at(-1) as bigint;
    const isShorter = i === 0 && part?.isSparse === true && sent < wanted;
    if (sent !== wanted && !isShorter) {
      throw new InternalError(`the server sent ${header.name} with ${sent} along ${axis}, not ${wanted}`);
    }
  });
}

/** Those that an axis can have, cut: that of the whole, or what the reads say; none where it is not known. */
function lengthsOf(axis: string, expectation: Expectation): bigint[] {
  const said = (expectation.sizes ?? []).filter((sizes) => sizes.has(axis)).map((sizes) => sizes.get(axis));
  const whole = lengthOf(axis, expectation);
  const lengths = (said.length > 0 ? said : [whole]).map((length) => length ?? whole);
  if (lengths.includes(undefined)) {
    return [];
  }
  const slice = sliceOf(expectation.options.slices ?? {}, axis) ?? {};
  return lengths.map((length) => BigInt(countOf(slice, length as number)));
}

/** Sizes of reads, each once. */
function together(
  before: readonly ReadonlyMap<string, number | undefined>[],
  added: readonly ReadonlyMap<string, number | undefined>[],
): readonly ReadonlyMap<string, number | undefined>[] {
  const isNew = added.filter(
    (sizes) => !before.some((other) => [...sizes].every(([axis, length]) => other.get(axis) === length)),
  );
  return isNew.length > 0 ? [...before, ...isNew] : before;
}

/** What has named axes. */
type Sized = Pick<Tensor, "dims" | "shape">;

/** @throws InternalError a tensor is as long as another read of the same method says. */
export function requireOwnSizes(expectation: Expectation, arrived: ReadonlyMap<string, Sized>): void {
  for (const [part, { dims, shape }] of arrived) {
    dims.forEach((axis, i) => {
      const lengths = lengthsOf(axis, expectation);
      const isSized = expectation.sizes?.some((sizes) => sizes.has(axis)) === true;
      if (isSized && lengths.length > 0 && !lengths.includes(BigInt(shape[i] as number))) {
        const { header } = expectation.method;
        throw new InternalError(
          `the server sent ${part} of ${header} with ${shape[i]} along ${axis}, not ${lengths[0]}`,
        );
      }
    });
  }
}

/** Of a whole axis; undefined where it is not known. */
function lengthOf(axis: string, { run, lengths, rows }: Expectation): number | undefined {
  if (axis === ROWS) {
    return rows;
  }
  const ofRun = OF_RUN.get(axis);
  return ofRun === undefined ? lengths?.get(axis) : run?.tokens.shape[ofRun];
}
