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

const BOUNDS: ReadonlySet<string> = new Set(["start", "stop", "step"]);

/**
 * Refuse what no value can be cut by.
 *
 * @throws InvalidRequestError INVALID_SLICE: an axis that no value has, a bound that is no integer, or a step below 1.
 */
export function requireSlices(slices: Slices): void {
  for (const [axis, part] of Object.entries(slices)) {
    if (!AXES.has(axis)) {
      throw invalidSlice(axis, `no tensor has an axis "${axis}"; the axes are ${[...AXES].sort().join(", ")}`);
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

/** Those that concern a value with these axes, as messages. */
export function slicesToWire(slices: Slices, dims: readonly string[]): AxisSlice[] {
  return Object.entries(slices)
    .filter(([axis]) => dims.includes(axis))
    .map(([axis, part]) =>
      create(AxisSliceSchema, { axis, start: wire(part.start), stop: wire(part.stop), step: wire(part.step) }),
    );
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

function bounded(bound: number, size: number): number {
  return Math.min(Math.max(bound < 0 ? bound + size : bound, 0), size);
}

function wire(bound: number | null | undefined): bigint | undefined {
  return bound === undefined || bound === null ? undefined : BigInt(bound);
}

function invalidSlice(axis: string, message: string): InvalidRequestError {
  return new InvalidRequestError(message, { reason: "INVALID_SLICE", metadata: { axis } });
}
