/** Puts the tensors of one stream together: each is allocated once, from its header, and filled chunk by chunk. */

import { type DtypeName, dtypeOfWire, sizeOf } from "./dtypes.js";
import type { TensorChunk, TensorHeader } from "./gen/transparent_llm/v1/tensor_pb.js";
import { quoted } from "./legible.js";
import { requireRoom } from "./room.js";
import { Tensor } from "./tensor.js";

/** Twice as many as any value has; more of them only take time. */
const MOST_AXES = 8;
/** More characters than any name of a tensor or an axis has, and than any etag. */
const MOST_NAME = 128;
const MOST_ETAG = 256;
/** More bytes than a process has addresses for. */
const ADDRESSABLE = 2n ** 47n;

/** A stream that does not follow tensor.proto: the peer is broken or speaks another protocol. */
export class StreamError extends Error {
  override name = "StreamError";
}

/** A tensor with the name in its header, as in "residual_out" or "decomposed_attn.pattern". */
export interface NamedTensor {
  readonly name: string;
  readonly tensor: Tensor;
}

/** One that arrives. */
interface Arriving extends Described {
  readonly bytes: Uint8Array<ArrayBuffer>;
  received: number;
}

/** What a header says, checked against itself. */
export interface Described {
  readonly name: string;
  readonly dtype: DtypeName;
  readonly shape: readonly number[];
  readonly dims: readonly string[];
  readonly totalBytes: number;
}

/**
 * Takes the messages of a stream, of several calls if it broke.
 *
 * `received` and `etag` are what a request for the rest needs after a break; `resume` says that one is sent.
 */
export class Assembler {
  /** Data bytes that came, over all tensors. */
  received = 0;
  /** Of all tensors whose header has come. */
  totalBytes = 0;

  readonly #maxBytes: number | undefined;
  readonly #most: number;
  readonly #check: (header: TensorHeader) => void;
  readonly #continues: (before: string, name: string) => boolean;
  #etag: string | undefined;
  #tensors: Arriving[] = [];
  /** The next message is the first of a call that takes the stream up. */
  #goesOn = false;

  /**
   * @param maxBytes the most that one value may take: one tensor, or those that continue one another.
   * @param most how many tensors there may be: headers without end fill the memory too.
   * @param check throws for the header of a tensor that was not asked for, before memory is taken for it.
   * @param continues whether a tensor is of one value with the one before it, by their names.
   */
  constructor(
    maxBytes?: number,
    most = Number.POSITIVE_INFINITY,
    check: (header: TensorHeader) => void = () => {},
    continues: (before: string, name: string) => boolean = () => false,
  ) {
    this.#maxBytes = maxBytes;
    this.#most = most;
    this.#check = check;
    this.#continues = continues;
  }

  /** Of the stream so far; empty before its first header. */
  get etag(): string {
    return this.#etag ?? "";
  }

  /** Whether a header has come. */
  get hasBegun(): boolean {
    return this.#etag !== undefined;
  }

  /** Whether every byte that was announced is there. */
  get isComplete(): boolean {
    return this.hasBegun && this.received === this.totalBytes;
  }

  /**
   * Take the next message.
   *
   * @throws StreamError no header yet, a gap, more data than announced, or a header that contradicts itself or the
   *   others.
   * @throws TooLargeError a value of more than `maxBytes` is announced.
   * @throws InternalError that of the check.
   */
  add(chunk: TensorChunk): void {
    if (chunk.header !== undefined) {
      this.#begin(chunk.header, chunk.offset);
    } else if (this.#goesOn) {
      throw new StreamError("the stream resumed without a header");
    }
    this.#goesOn = false;
    if (chunk.shared !== undefined) {
      throw new StreamError("data in shared memory that was not offered");
    }
    this.#fill(chunk.offset, chunk.data);
  }

  /** The stream broke and is asked for from `received` on. What has no bytes yet will be sent again. */
  resume(): void {
    for (let last = this.#tensors.at(-1); last?.received === 0; last = this.#tensors.at(-1)) {
      this.#tensors.pop();
      this.totalBytes -= last.bytes.byteLength;
    }
    this.#goesOn = true;
  }

  /**
   * The finished tensors, in their order.
   *
   * @throws StreamError there is none, or the last one is not finished.
   */
  tensors(): NamedTensor[] {
    if (!this.isComplete) {
      throw new StreamError(`the stream ended at byte ${this.received} of ${this.totalBytes}`);
    }
    return this.#tensors.map((held) => ({ name: held.name, tensor: new Tensor(held) }));
  }

  #begin(header: TensorHeader, offset: bigint): void {
    const current = this.#tensors.at(-1);
    const described = describedBy(header);
    if (header.etag === this.#etag) {
      if (this.#goesOn && offset > 0n && current !== undefined) {
        requireSame(current, header);
        return;
      }
      if (!this.isComplete) {
        throw new StreamError(`${quoted(header.name)} begins at byte ${this.received} of ${this.totalBytes}`);
      }
    } else if (this.hasBegun && !this.#goesOn) {
      throw new StreamError(`the header of ${quoted(header.name)} has a different etag than its stream`);
    }
    this.#check(header);
    const before = header.etag === this.#etag ? this.#ofSameValue(header.name) : 0;
    requireRoom(header.name, BigInt(before) + header.totalBytes, this.#maxBytes);
    if (header.etag !== this.#etag) {
      this.#startOver(header.etag); // the first header, or the server could not promise the same bits
    }
    if (this.#tensors.length >= this.#most) {
      throw new StreamError(`${quoted(header.name)} begins after ${this.#most} tensors, the most there can be`);
    }
    const begun = { ...described, bytes: memory(header.totalBytes), received: 0 };
    this.#tensors.push(begun);
    this.totalBytes += begun.bytes.byteLength;
  }

  /** Bytes of the tensors before this one that are one value together with it. */
  #ofSameValue(name: string): number {
    let sum = 0;
    let after = name;
    for (const held of this.#tensors.toReversed()) {
      if (!this.#continues(held.name, after)) {
        break;
      }
      sum += held.bytes.byteLength;
      after = held.name;
    }
    return sum;
  }

  #startOver(etag: string): void {
    this.#tensors = [];
    this.#etag = etag;
    this.received = this.totalBytes = 0;
  }

  #fill(offset: bigint, data: Uint8Array): void {
    const current = this.#tensors.at(-1);
    if (current === undefined) {
      throw new StreamError("the stream began without a header");
    }
    const end = current.received + data.byteLength;
    if (offset !== BigInt(current.received) || end > current.bytes.byteLength) {
      const chunk = `chunk ${offset} of ${data.byteLength} bytes`;
      throw new StreamError(`${chunk} after byte ${current.received} of ${current.bytes.byteLength}`);
    }
    current.bytes.set(data, current.received);
    current.received = end;
    this.received += data.byteLength;
  }
}

function requireSame(held: Arriving, header: TensorHeader): void {
  const isSame =
    header.name === held.name &&
    dtypeOfWire(header.dtype) === held.dtype &&
    header.totalBytes === BigInt(held.bytes.byteLength) &&
    header.shape.length === held.shape.length &&
    header.shape.every((size, axis) => size === BigInt(held.shape[axis] as number)) &&
    header.dims.length === held.dims.length &&
    header.dims.every((name, axis) => name === held.dims[axis]);
  if (!isSame) {
    throw new StreamError("a header with the etag of the broken stream describes another tensor");
  }
}

/**
 * A header, which may come from anyone. Nothing is computed of what is more than any header has.
 *
 * @throws StreamError it contradicts itself.
 */
export function describedBy(header: TensorHeader): Described {
  const dtype = dtypeOfWire(header.dtype);
  if (dtype === undefined) {
    throw new StreamError(`unknown dtype ${header.dtype} in the header`);
  }
  if (header.dims.length !== header.shape.length || header.shape.length > MOST_AXES) {
    throw new StreamError(`the header names ${header.dims.length} axes of ${header.shape.length}`);
  }
  const longest = Math.max(header.name.length, ...header.dims.map(({ length }) => length));
  if (longest > MOST_NAME || header.etag.length > MOST_ETAG) {
    throw new StreamError(`the header has a name of ${longest} characters and an etag of ${header.etag.length}`);
  }
  if (bytesOf(header, dtype) !== header.totalBytes) {
    const what = `${dtype} [${header.shape.join(", ")}] [${header.dims.map(quoted).join(", ")}]`;
    throw new StreamError(`the header contradicts itself: ${what} in ${header.totalBytes} bytes`);
  }
  const totalBytes = Number(header.totalBytes);
  return { name: header.name, dtype, shape: header.shape.map(Number), dims: [...header.dims], totalBytes };
}

/** What a tensor takes. An axis of length 0 counts as 1 towards what can be addressed. */
function bytesOf({ shape }: TensorHeader, dtype: DtypeName): bigint {
  let taken = BigInt(sizeOf(dtype));
  for (const length of shape) {
    if (length > ADDRESSABLE / taken) {
      throw new StreamError(`no tensor can have the shape [${shape.join(", ")}]`);
    }
    taken *= length === 0n ? 1n : length;
  }
  return shape.includes(0n) ? 0n : taken;
}

function memory(totalBytes: bigint): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(Number(totalBytes));
  } catch (error) {
    if (error instanceof RangeError) {
      throw new StreamError(`no memory for the ${totalBytes} bytes that were announced`);
    }
    throw error;
  }
}
