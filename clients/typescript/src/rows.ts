/** Runs of elements of a tensor, read and written in single precision. */

import type { DtypeName } from "./dtypes.js";
import { InternalError } from "./errors.js";
import { decodeBf16, decodeF16, encodeBf16, encodeF16 } from "./halves.js";
import { Tensor } from "./tensor.js";

/** Elements `start` to before `stop` in single precision. Valid until the next call; not to be written to. */
export type RowReader = (start: number, stop: number) => Float32Array;

/** @throws InternalError the tensor is not of a floating type. */
export function rowReader(tensor: Tensor): RowReader {
  const { data } = tensor;
  if (data instanceof Float32Array) {
    return (start, stop) => data.subarray(start, stop);
  }
  let scratch = new Float32Array(0);
  const room = (length: number): Float32Array => {
    scratch = scratch.length === length ? scratch : new Float32Array(length);
    return scratch;
  };
  if (data instanceof Float64Array) {
    return (start, stop) => {
      const row = room(stop - start);
      row.set(data.subarray(start, stop));
      return row;
    };
  }
  if (data instanceof Uint16Array) {
    const decode = tensor.dtype === "BF16" ? decodeBf16 : decodeF16;
    return (start, stop) => {
      const row = room(stop - start);
      decode(data.subarray(start, stop), row);
      return row;
    };
  }
  throw new InternalError(`the server sent a factor of type ${tensor.dtype}; factors are floating`);
}

/** A tensor, and what writes rows of single precision into it, rounded to nearest, ties to even. */
export interface RowWriter {
  readonly tensor: Tensor;
  /** A row at an element. */
  write(start: number, row: Float32Array): void;
}

/**
 * Of a new tensor in memory of zeros.
 *
 * @throws InternalError the type is not floating.
 */
export function rowWriter(
  dtype: DtypeName,
  shape: readonly number[],
  dims: readonly string[],
  bytes: Uint8Array<ArrayBuffer>,
): RowWriter {
  const tensor = new Tensor({ dtype, shape, dims, bytes });
  const { data } = tensor;
  if (data instanceof Float32Array || data instanceof Float64Array) {
    return { tensor, write: (start, row) => data.set(row, start) };
  }
  if (data instanceof Uint16Array) {
    const encode = dtype === "BF16" ? encodeBf16 : encodeF16;
    return { tensor, write: (start, row) => encode(row, data.subarray(start, start + row.length)) };
  }
  throw new InternalError(`the server sent a first factor of type ${dtype}; factors are floating`);
}
