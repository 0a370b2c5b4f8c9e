/**
 * Values that are products: the factors travel, the product is made here.
 *
 * The product *is* the definition of the value: taken in single precision, from left to right, rounded once to the
 * type of the first factor. So whoever multiplies gets the same bits.
 */

import { sizeOf } from "./dtypes.js";
import { InternalError } from "./errors.js";
import { memoryFor, requireRoom } from "./room.js";
import { type RowReader, rowReader, rowWriter } from "./rows.js";
import type { Scope } from "./scope.js";
import type { Tensor } from "./tensor.js";

/** What came for one read, under the names of the factors. */
export type Factors = ReadonlyMap<string, Tensor>;

const ATTN_DIMS = ["target", "source", "head", "d_model"];
const FFN_DIMS = ["hidden", "d_model"];

/**
 * `value[t, s, h] = (pattern[h, t, s] * value_out[s, h]) * gain[t]`.
 *
 * @throws InternalError the factors do not fit together.
 * @throws TooLargeError the product takes more than `maxBytes`, or than there is memory.
 * @throws CancelledError, DeadlineError the call is cancelled, or its time is over, while it is made.
 */
export async function attnProduct(factors: Factors, maxBytes: number, scope: Scope): Promise<Tensor> {
  const pattern = factor(factors, "decomposed_attn", "pattern", 3);
  const valueOut = factor(factors, "decomposed_attn", "value_out", 3);
  const [heads, targets, sources] = pattern.shape as [number, number, number];
  const width = valueOut.shape[2] as number;
  requireFit("decomposed_attn", valueOut, [sources, heads, width]);
  requireFloats("decomposed_attn", valueOut);
  const gain = gainOf("decomposed_attn", factors, [targets, width]);
  const shape = [targets, sources, heads, width];
  const out = rowWriter(pattern.dtype, shape, ATTN_DIMS, roomFor("decomposed_attn", pattern, shape, maxBytes));
  const weights = rowReader(pattern)(0, pattern.length);
  const values = rowReader(valueOut);
  const product = new Float32Array(width);
  const rows = sources * heads * width === 0 ? 0 : targets; // nothing to multiply takes no time
  for (let target = 0, start = 0; target < rows; target++) {
    await scope.breathe();
    const gains = gain?.(target);
    for (let row = 0; row < sources * heads; row++, start += width) {
      const [source, head] = [Math.floor(row / heads), row % heads];
      const weight = weights[(head * targets + target) * sources + source] as number;
      multiply(product, values(row * width, (row + 1) * width), weight, gains);
      out.write(start, product);
    }
  }
  return out.tensor;
}

/**
 * `value[n] = (activations[n] * weights[n]) * gain`; neurons outside the spans are 0.
 *
 * @param weights the output vectors of all neurons of the layer [d_ffn d_model].
 * @throws InternalError the factors do not fit together, or not to the weights.
 * @throws TooLargeError the product takes more than `maxBytes`, or than there is memory.
 * @throws CancelledError, DeadlineError the call is cancelled, or its time is over, while it is made.
 */
export async function ffnProduct(factors: Factors, weights: Tensor, maxBytes: number, scope: Scope): Promise<Tensor> {
  const activations = factor(factors, "decomposed_ffn_out", "activations", 1);
  requireFit("decomposed_ffn_out", weights, [weights.shape[0] ?? 0, weights.shape[1] ?? 0]);
  const [count, width] = weights.shape as [number, number];
  const spans = spansOf(factors, count);
  const computed = spans.reduce((sum, [start, stop]) => sum + stop - start, 0);
  requireFit("decomposed_ffn_out", activations, [computed]);
  const gain = gainOf("decomposed_ffn_out", factors, [width]);
  const shape = [count, width];
  const out = rowWriter(
    activations.dtype,
    shape,
    FFN_DIMS,
    roomFor("decomposed_ffn_out", activations, shape, maxBytes),
  );
  if (count * width === 0) {
    return out.tensor;
  }
  const active = rowReader(activations)(0, computed);
  const rows = rowReader(weights);
  const gains = gain?.(0);
  const product = new Float32Array(width);
  let position = 0;
  for (const [start, stop] of spans) {
    for (let neuron = start; neuron < stop; neuron++) {
      await scope.breathe();
      multiply(product, rows(neuron * width, (neuron + 1) * width), active[position++] as number, gains);
      out.write(neuron * width, product);
    }
  }
  return out.tensor;
}

/**
 * Each step is rounded to single precision, by the array that it is stored in: two singles multiply exactly in a
 * double.
 */
function multiply(
  out: Float32Array,
  row: Float32Array,
  weight: number,
  gains: Float32Array | number | undefined,
): void {
  for (let i = 0; i < row.length; i++) {
    out[i] = weight * (row[i] as number);
  }
  if (typeof gains === "number") {
    for (let i = 0; i < out.length; i++) {
      out[i] = (out[i] as number) * gains;
    }
  } else if (gains !== undefined) {
    for (let i = 0; i < out.length; i++) {
      out[i] = (out[i] as number) * (gains[i] as number);
    }
  }
}

/** What lies between a part and the residual stream: a number, or a row for each row of the gain. */
function gainOf(
  method: string,
  factors: Factors,
  shape: readonly number[],
): ((row: number) => Float32Array | number) | undefined {
  const gain = factors.get("gain");
  if (gain === undefined) {
    return undefined;
  }
  requireFloats(method, gain);
  const read: RowReader = rowReader(gain);
  if (gain.shape.length === 0) {
    const [scalar] = read(0, 1) as unknown as [number];
    return () => scalar;
  }
  requireFit(method, gain, shape);
  const width = shape.at(-1) as number;
  return (row) => read(row * width, (row + 1) * width);
}

/** (start, stop) of the neurons that are computed, in their order. Without any: all of them. */
function spansOf(factors: Factors, count: number): [number, number][] {
  const spans = factors.get("spans");
  if (spans === undefined) {
    return [[0, count]];
  }
  if (spans.dtype !== "I64" || spans.shape.length !== 2 || spans.shape[1] !== 2 || spans.length > 2 * count) {
    throw misfit("decomposed_ffn_out", `spans are ${spans.dtype} [${spans.shape.join(", ")}]`);
  }
  const bounds = spans.toFloat64();
  let end = 0;
  return Array.from({ length: bounds.length / 2 }, (_, i) => {
    const [start, stop] = [bounds[i * 2] as number, bounds[i * 2 + 1] as number];
    if (start < end || stop < start || stop > count) {
      throw misfit("decomposed_ffn_out", `a span from ${start} to ${stop} of ${count} neurons, after ${end}`);
    }
    end = stop;
    return [start, stop];
  });
}

function factor(factors: Factors, method: string, name: string, axes: number): Tensor {
  const tensor = factors.get(name);
  if (tensor === undefined) {
    throw misfit(method, `there is no ${name}`);
  }
  if (tensor.shape.length !== axes) {
    throw misfit(method, `${name} has the shape [${tensor.shape.join(", ")}]`);
  }
  return tensor;
}

function requireFit(method: string, tensor: Tensor, shape: readonly number[]): void {
  if (tensor.shape.length !== shape.length || tensor.shape.some((size, axis) => size !== shape[axis])) {
    throw misfit(method, `a shape is [${tensor.shape.join(", ")}], not [${shape.join(", ")}]`);
  }
}

/** All factors but the first, which has the type of the value. */
function requireFloats(method: string, tensor: Tensor): void {
  if (tensor.dtype !== "F32") {
    throw misfit(method, `a factor is of type ${tensor.dtype}, not F32`);
  }
}

function misfit(method: string, what: string): InternalError {
  return new InternalError(`the factors of ${method} do not fit together: ${what}`);
}

function roomFor(method: string, first: Tensor, shape: readonly number[], maxBytes: number): Uint8Array<ArrayBuffer> {
  const nbytes = shape.reduce((product, size) => product * size, sizeOf(first.dtype));
  requireRoom(method, nbytes, maxBytes);
  return memoryFor(method, nbytes);
}
