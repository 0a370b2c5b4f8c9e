/** By what reads of one run are told apart: two that mean the same value have the same key, however they are written. */

import { type Index, type Method, READS } from "./methods.js";
import type { ReadOptions } from "./options.js";
import type { CheckedRead } from "./reads.js";
import type { Run } from "./run.js";
import type { ModelDescription } from "./server_info.js";
import { sliceOf } from "./slices.js";

/** Whether its indices can be counted from the start only where the model is known. */
export function needsModel({ name, indices }: CheckedRead): boolean {
  return READS[name].axes.some((axis, i) => ["layer", "head"].includes(axis) && (indices[i] ?? 0) < 0);
}

/**
 * The key of a read, and those of others that mean the same value: the stream as it leaves a layer is that which enters the next.
 *
 * @param model undefined: it is not known.
 */
export function keysOf(
  run: Run,
  read: CheckedRead,
  options: ReadOptions,
  model: ModelDescription | undefined,
): [string, ...string[]] {
  const method = READS[read.name];
  const indices = counted(run, method, read.indices, model);
  const rest = [Object.entries(read.fields ?? {}).sort(), partsOf(method, options), options.dtype ?? ""];
  const keyOf = (name: string, of: readonly Index[]): string => JSON.stringify([name, of, ...rest]);
  const [layer] = indices as [number];
  const key = keyOf(read.name, indices);
  if (read.name === "residualOut" && layer >= 0) {
    return [key, keyOf("residualIn", [layer + 1])];
  }
  const isInside = layer > 0 && model !== undefined && layer < model.nLayers;
  return read.name === "residualIn" && isInside ? [key, keyOf("residualOut", [layer - 1])] : [key];
}

/** The same indices from the start. Those outside, and those along an axis whose length is not known, stay. */
function counted(
  { tokens, mask }: Run,
  { arguments: names, axes }: Method,
  indices: readonly Index[],
  model: ModelDescription | undefined,
): Index[] {
  const [batch, nPos] = tokens.shape as [number, number];
  const fromStart = (index: Index, size: number | undefined): Index =>
    typeof index === "number" && index < 0 && size !== undefined && index + size >= 0 ? index + size : (index ?? null);
  const row = fromStart(indices[axes.indexOf("batch")], batch);
  const isRow = typeof row === "number" && row >= 0 && row < batch;
  const ofRow = isRow ? mask?.bytes.subarray(row * nPos, (row + 1) * nPos) : undefined;
  const lengths = new Map<string, number | undefined>([
    ["batch", batch],
    ["pos", isRow ? (ofRow?.reduce((count, isToken) => count + isToken, 0) ?? nPos) : undefined],
    ["layer", model?.nLayers],
    ["head", model?.nHeads],
  ]);
  return names.map((_, i) => fromStart(indices[i], lengths.get(axes[i] as string)));
}

/** The slices of a value's axes. */
function partsOf({ dims, parts }: Method, { slices = {} }: ReadOptions): unknown[] {
  const axes = [...new Set([...dims, ...[...parts.values()].flatMap((part) => part.dims)])];
  return axes.flatMap((axis) => {
    const { start, stop, step } = sliceOf(slices, axis) ?? {};
    const isWhole = (start ?? 0) === 0 && (stop ?? null) === null && (step ?? 1) === 1;
    return isWhole ? [] : [[axis, start ?? 0, stop ?? null, step ?? 1]];
  });
}
