/** Parts of axes, by their names. */

import { create } from "@bufbuild/protobuf";
import { InvalidRequestError } from "./errors.js";
import { type AxisSlice, AxisSliceSchema } from "./gen/transparent_llm/v1/tensor_pb.js";
import { AXES } from "./methods.js";
import { Tensor } from "./tensor.js";

/** A part of one axis, as Python's `start:stop:step`. */
export interface Slice {
  /** First index. Negative counts from the end. Default: 0. */
  readonly start?: number | null | undefined;
  /** Index after the last. Negative counts from the end. Default: the length of the axis. */
  readonly stop?: number | null | undefined;
  /** Distance of two indices, at least 1. Default: 1. */
  readonly step?: number | null | undefined;
}

/** A part for each axis that is cut: `{ pos: { start: -1 } }` is the last position. */
export type Slices = Readonly<Record<string, Slice>>;

/** What `unembed` calls the axis that is d_vocab elsewhere. */
const OTHER_NAME = "vocab";

const BOUNDS: ReadonlySet<string> = new Set(["start", "stop", "step"]);

/**
 * Refuse what no value can be cut by.
 *
 * @throws InvalidRequestError INVALID_SLICE: an axis that no value has, a bound that is no integer, or a step below 1.
 */
export function requireSlices(slices: Slices): void {
  if (OTHER_NAME in slices && oneName(OTHER_NAME) in slices) {
    throw invalidSlice(OTHER_NAME, "vocab and d_vocab are two names of one axis: give it once");
  }
  for (const [axis, part] of Object.entries(slices)) {
    if (!AXES.has(axis)) {
      const known = [...AXES].filter((name) => name !== OTHER_NAME).sort();
      throw invalidSlice(axis, `no tensor has an axis "${axis}"; the axes are ${known.join(", ")}`);
    }
    if (typeof part !== "object" || part === null) {
      throw invalidSlice(
        axis,
        `the slice of "${axis}" is ${String(part)}; for one index write { start: i, stop: i + 1 }`,
      );
    }
    const unknown = Object.keys(part).find((key) => !BOUNDS.has(key));
    if (unknown !== undefined) {
      throw invalidSlice(axis, `the slice of "${axis}" has a "${unknown}"; write { start, stop, step }`);
    }
    const bounds = [part.start, part.stop, part.step].filter((bound) => bound !== undefined && bound !== null);
    if (!bounds.every(Number.isSafeInteger)) {
      throw invalidSlice(axis, `the slice of "${axis}" has a bound that is not an integer`);
    }
    if (part.step !== undefined && part.step !== null && part.step < 1) {
      throw invalidSlice(axis, `step ${part.step} on axis "${axis}": a step must be at least 1`);
    }
  }
}

/**
 * Refuse a slice of an axis that a value does not have: it would come whole, as if nothing had been asked for.
 *
 * @throws InvalidRequestError INVALID_SLICE.
 */
export function requireAxes(name: string, dims: readonly string[], slices: Slices): void {
  const known = dims.map(oneName);
  for (const axis of Object.keys(slices)) {
    if (!known.includes(oneName(axis))) {
      throw invalidSlice(
        axis,
        `${name} has no axis "${axis}", which the slices of this call cut; its axes are ${known.join(", ")}: ` +
          "read it without, or in a call of its own",
      );
    }
  }
}

/** The slice of an axis; undefined if it is not cut. */
export function sliceOf(slices: Slices, axis: string): Slice | undefined {
  return Object.entries(slices).find(([name]) => oneName(name) === oneName(axis))?.[1];
}

/** Those of a value with these axes, as messages. */
export function slicesToWire(slices: Slices, dims: readonly string[]): AxisSlice[] {
  return dims.flatMap((axis) => {
    const part = sliceOf(slices, axis);
    return part === undefined
      ? []
      : [create(AxisSliceSchema, { axis, start: wire(part.start), stop: wire(part.stop), step: wire(part.step) })];
  });
}

/** The part of a tensor of two axes that is here already. */
export function cut(tensor: Tensor, slices: Slices): Tensor {
  const [rows, columns] = tensor.dims.map((name, axis) =>
    indices(slices[name] ?? {}, tensor.shape[axis] as number),
  ) as [number[], number[]];
  const width = tensor.shape[1] as number;
  const size = tensor.length === 0 ? 0 : tensor.bytes.byteLength / tensor.length;
  const bytes = new Uint8Array(rows.length * columns.length * size);
  let end = 0;
  for (const row of rows) {
    for (const column of columns) {
      const start = (row * width + column) * size;
      bytes.set(tensor.bytes.subarray(start, start + size), end);
      end += size;
    }
  }
  return new Tensor({ dtype: tensor.dtype, shape: [rows.length, columns.length], dims: tensor.dims, bytes });
}

/** As Python's `range(size)[start:stop:step]`. */
function indices(part: Slice, size: number): number[] {
  const step = part.step ?? 1;
  const stop = bounded(part.stop ?? size, size);
  const found: number[] = [];
  for (let index = bounded(part.start ?? 0, size); index < stop; index += step) {
    found.push(index);
  }
  return found;
}

/** How many indices of an axis a slice takes. */
export function countOf({ start, stop, step }: Slice, size: number): number {
  const [first, end] = [bounded(start ?? 0, size), bounded(stop ?? size, size)];
  return end <= first ? 0 : Math.floor((end - first - 1) / (step ?? 1)) + 1;
}

/** The name by which an axis is known here: d_vocab has two. */
function oneName(axis: string): string {
  return axis === OTHER_NAME ? "d_vocab" : axis;
}

function bounded(bound: number, size: number): number {
  return Math.min(Math.max(bound < 0 ? bound + size : bound, 0), size);
}

function wire(bound: number | null | undefined): bigint | undefined {
  return bound === undefined || bound === null ? undefined : BigInt(bound);
}

function invalidSlice(axis: string, message: string): InvalidRequestError {
  return new InvalidRequestError(message, { reason: "INVALID_SLICE", metadata: { axis } });
}
