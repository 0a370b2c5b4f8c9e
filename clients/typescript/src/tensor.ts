/** A tensor: raw bytes in the type in which they came, and what they mean. */

import type { MessageInitShape } from "@bufbuild/protobuf";
import { type DtypeName, sizeOf, wireOfDtype } from "./dtypes.js";
import { IndexOutOfRangeError, InvalidRequestError } from "./errors.js";
import type { TensorSchema } from "./gen/transparent_llm/v1/tensor_pb.js";
import { decodeBf16, decodeF16 } from "./halves.js";

/** The elements as they lie in memory. BF16 and F16, which have no array of their own, are their 16 bits. */
export type TensorData =
  | Uint8Array
  | Int8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | BigInt64Array
  | Float32Array
  | Float64Array;

interface ArrayKind {
  new (buffer: ArrayBuffer, byteOffset: number, length: number): TensorData;
}

const ARRAYS: Readonly<Record<DtypeName, ArrayKind>> = {
  BOOL: Uint8Array,
  U8: Uint8Array,
  I8: Int8Array,
  I16: Int16Array,
  I32: Int32Array,
  I64: BigInt64Array,
  F16: Uint16Array,
  BF16: Uint16Array,
  F32: Float32Array,
  F64: Float64Array,
};

const IS_LITTLE_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** What a tensor is made of. */
export interface TensorParts {
  readonly dtype: DtypeName;
  /** Length of each axis; empty for a scalar. */
  readonly shape: readonly number[];
  /** Name of each axis, as in "batch", "pos", "d_model". */
  readonly dims?: readonly string[];
  /** The elements in C order, little-endian. Not copied. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** An array of numbers with any number of axes, in C order. A scalar has no axes; an axis may have length 0. */
export class Tensor {
  /** The element type in which the value came. */
  readonly dtype: DtypeName;
  /** Length of each axis. */
  readonly shape: readonly number[];
  /** Name of each axis; empty where they have none. */
  readonly dims: readonly string[];
  /** The elements in C order, little-endian. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  #data: TensorData | undefined;

  /** @throws InvalidRequestError INVALID_DTYPE or INVALID_SHAPE: the parts do not fit together. */
  constructor(parts: TensorParts) {
    wireOfDtype(parts.dtype);
    requireShape(parts);
    this.dtype = parts.dtype;
    this.shape = [...parts.shape];
    this.dims = [...(parts.dims ?? [])];
    this.bytes = parts.bytes;
  }

  /**
   * A tensor of single precision, of numbers that are rounded to it. Without a shape: a vector.
   *
   * @throws InvalidRequestError INVALID_DTYPE: something else than numbers; INVALID_SHAPE: not as many as the shape has.
   */
  static ofFloats(values: ArrayLike<number>, shape: readonly number[] = [values.length]): Tensor {
    const bytes = new Uint8Array(values.length * 4);
    const view = new DataView(bytes.buffer);
    for (let i = 0; i < values.length; i++) {
      view.setFloat32(i * 4, requireNumber(values[i]), true);
    }
    return new Tensor({ dtype: "F32", shape, bytes });
  }

  /** Number of elements. */
  get length(): number {
    return this.bytes.byteLength / sizeOf(this.dtype);
  }

  /**
   * The elements: a Float32Array for F32, a BigInt64Array for I64, 0 and 1 in a Uint8Array for BOOL. For BF16 and F16
   * their 16 bits in a Uint16Array; `toFloat32` decodes them. Shares its memory with `bytes` wherever that is
   * aligned.
   */
  get data(): TensorData {
    this.#data ??= this.#viewed();
    return this.#data;
  }

  /**
   * The elements in single precision: exact for BF16, F16 and F32, rounded for F64 and large integers. For F32 this
   * is `data` itself, not a copy.
   */
  toFloat32(): Float32Array {
    const data = this.data;
    if (data instanceof Float32Array) {
      return data;
    }
    if (data instanceof Uint16Array) {
      const decoded = new Float32Array(data.length);
      (this.dtype === "BF16" ? decodeBf16 : decodeF16)(data, decoded);
      return decoded;
    }
    return data instanceof BigInt64Array ? Float32Array.from(data, Number) : Float32Array.from(data);
  }

  /** The elements as numbers: exact, but for integers beyond 2 ** 53. */
  toFloat64(): Float64Array {
    const data = this.data;
    if (data instanceof BigInt64Array) {
      return Float64Array.from(data, Number);
    }
    return Float64Array.from(data instanceof Uint16Array ? this.toFloat32() : data);
  }

  /**
   * One element as a number. Takes an index for each axis; negative ones count from the end, as in `Array.at`.
   *
   * @throws IndexOutOfRangeError an index outside its axis, or an integer that no number holds exactly (`data` has it).
   * @throws InvalidRequestError INVALID_SHAPE: not one index for each axis.
   */
  at(...indices: number[]): number {
    const element = this.data[this.#position(indices)] as number | bigint;
    if (typeof element === "bigint") {
      return exactNumber(element);
    }
    if (this.dtype !== "BF16" && this.dtype !== "F16") {
      return element;
    }
    const decoded = new Float32Array(1);
    (this.dtype === "BF16" ? decodeBf16 : decodeF16)(Uint16Array.of(element), decoded);
    return decoded[0] as number;
  }

  #position(indices: readonly number[]): number {
    if (indices.length !== this.shape.length) {
      throw new InvalidRequestError(`at takes ${this.shape.length} indices for the shape [${this.shape.join(", ")}]`, {
        reason: "INVALID_SHAPE",
        metadata: { expected: String(this.shape.length), got: String(indices.length) },
      });
    }
    return this.shape.reduce((position, size, axis) => {
      return position * size + indexIn(this.dims[axis] ?? String(axis), size, indices[axis] as number);
    }, 0);
  }

  #viewed(): TensorData {
    const size = sizeOf(this.dtype);
    const inPlace = IS_LITTLE_ENDIAN && this.bytes.byteOffset % size === 0;
    const bytes = inPlace ? this.bytes : this.bytes.slice();
    if (!IS_LITTLE_ENDIAN) {
      for (let start = 0; start < bytes.length; start += size) {
        bytes.subarray(start, start + size).reverse();
      }
    }
    return new ARRAYS[this.dtype](bytes.buffer, bytes.byteOffset, this.length);
  }
}

/** A tensor as it is sent. A copy: the caller may write to it meanwhile. */
export function wireOfTensor({ dtype, shape, bytes }: Tensor): MessageInitShape<typeof TensorSchema> {
  return { dtype: wireOfDtype(dtype), shape: shape.map(BigInt), data: bytes.slice() };
}

function requireNumber(value: unknown): number {
  if (typeof value !== "number") {
    throw new InvalidRequestError(`${String(value)} is not a number but ${typeof value}`, { reason: "INVALID_DTYPE" });
  }
  return value;
}

function requireShape({ dtype, shape, dims = [], bytes }: TensorParts): void {
  const isShape = shape.every((size) => Number.isSafeInteger(size) && size >= 0);
  const hasDims = dims.length === 0 || dims.length === shape.length;
  const expected = shape.includes(0) ? 0 : shape.reduce((product, size) => product * size, sizeOf(dtype));
  if (!isShape || !hasDims || expected !== bytes.byteLength) {
    throw new InvalidRequestError(
      `${bytes.byteLength} bytes and ${dims.length} axis names make no ${dtype} tensor of shape [${shape.join(", ")}]`,
      { reason: "INVALID_SHAPE", metadata: { expected: String(expected), got: String(bytes.byteLength) } },
    );
  }
}

/**
 * An index from 0; a negative one counts from the end.
 *
 * @throws IndexOutOfRangeError it is outside the axis.
 */
export function indexIn(axis: string, size: number, given: number): number {
  const index = given < 0 ? given + size : given;
  if (!Number.isInteger(index) || index < 0 || index >= size) {
    const valid = size > 0 ? `valid indices are ${-size} to ${size - 1}` : "there are none";
    throw new IndexOutOfRangeError(`${axis} ${given} is out of range: ${valid}`, {
      metadata: { axis, size: String(size), got: String(given) },
    });
  }
  return index;
}

function exactNumber(element: bigint): number {
  const number = Number(element);
  if (!Number.isSafeInteger(number)) {
    throw new IndexOutOfRangeError(`${element} is beyond what a number holds exactly; read it from data`);
  }
  return number;
}
