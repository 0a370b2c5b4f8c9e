/** Tensors as plain numbers, and single indices of axes. */

import type { Slice, Tensor } from "transparent-llm/web";

/** All elements in C order. */
export function numbersOf(tensor: Tensor): number[] {
  return Array.from(tensor.toFloat64());
}

/** One index of an axis. */
export function only(index: number): Slice {
  return { start: index, stop: index + 1 };
}
