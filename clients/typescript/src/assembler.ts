/** Puts the tensors of one stream together: each is allocated once, from its header, and filled chunk by chunk. */

import { type DtypeName, dtypeOfWire, sizeOf } from "./dtypes.js";
import type { TensorChunk, TensorHeader } from "./gen/transparent_llm/v1/tensor_pb.js";
import { requireRoom } from "./room.js";
import { Tensor } from "./tensor.js";

/** No value has half as many; more of them only take time. */
const MOST_AXES = 64;

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
interface Arriving {
  readonly name: string;
  readonly dtype: DtypeName;
  readonly shape: readonly number[];
  readonly dims: readonly string[];
  readonly bytes: Uint8Array<ArrayBuffer>;
  received: number;
}

/**
 * Takes the messages of a stream, of several calls if it was cut.
 *
 * `received` and `etag` are what a request for the rest needs after a cut; `resume` says that one is sent.
 */
export class Assembler {
  /** Data bytes that came, over all tensors. */
  received = 0;
  /** Of all tensors whose header has come. */
  totalBytes = 0;

  readonly #maxBytes: number | undefined;
  readonly #most: number;
  #etag: string | undefined;
  #tensors: Arriving[] = [];
  /** The next message is the first of a call that takes the stream up. */
  #goesOn = false;

  /**
   * @param maxBytes the most that one tensor may take.
   * @param most how many there may be: headers without end fill the memory too.
   */
  constructor(maxBytes?: number, most = Number.POSITIVE_INFINITY) {
    this.#maxBytes = maxBytes;
    this.#most = most;
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
   * @throws TooLargeError a tensor of more than `maxBytes` is announced.
   */
  add(chunk: TensorChunk): void {
    if (chunk.header !== undefined) {
      this.#begin(chunk.header, chunk.offset);
    } else if (this.#goesOn) {
      throw new StreamError("the stream was taken up without a header");
    }
    this.#goesOn = false;
    if (chunk.shared !== undefined) {
      throw new StreamError("data in shared memory that was not offered");
    }
    this.#fill(chunk.offset, chunk.data);
  }

  /** The stream was cut and is asked for from `received` on. What has no bytes yet will be sent again. */
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
    if (header.etag === this.#etag) {
      if (this.#goesOn && offset > 0n && current !== undefined) {
        requireSame(current, header);
        return;
      }
      if (!this.isComplete) {
        throw new StreamError(`${header.name} begins at byte ${this.received} of ${this.totalBytes}`);
      }
    } else if (this.hasBegun && !this.#goesOn) {
      throw new StreamError(`the header of ${header.name} has another etag than its stream`);
    }
    requireRoom(header.name, header.totalBytes, this.#maxBytes);
    const begun = allocated(header);
    if (header.etag !== this.#etag) {
      this.#startOver(header.etag); // the first header, or the server could not promise the same bits
    }
    if (this.#tensors.length >= this.#most) {
      throw new StreamError(`${header.name} begins after ${this.#most} tensors, which is all that there can be`);
    }
    this.#tensors.push(begun);
    this.totalBytes += begun.bytes.byteLength;
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
    throw new StreamError("a header with the etag of the cut stream describes another tensor");
  }
}

/** Memory for what a header announces, which may come from anyone. */
function allocated(header: TensorHeader): Arriving {
  const dtype = dtypeOfWire(header.dtype);
  if (dtype === undefined) {
    throw new StreamError(`unknown dtype ${header.dtype} in the header`);
  }
  if (header.dims.length !== header.shape.length || header.shape.length > MOST_AXES) {
    throw new StreamError(`the header names ${header.dims.length} axes of ${header.shape.length}`);
  }
  const wanted = header.shape.reduce((product, size) => product * size, BigInt(sizeOf(dtype)));
  if (wanted !== header.totalBytes) {
    const what = `${dtype} [${header.shape.join(", ")}] [${header.dims.join(", ")}]`;
    throw new StreamError(`the header contradicts itself: ${what} in ${header.totalBytes} bytes`);
  }
  const shape = header.shape.map(Number);
  if (!shape.every(Number.isSafeInteger)) {
    throw new StreamError(`no tensor can have the shape [${header.shape.join(", ")}]`);
  }
  return { name: header.name, dtype, shape, dims: [...header.dims], bytes: memory(header.totalBytes), received: 0 };
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
