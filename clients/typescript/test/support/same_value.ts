/** Comparing large tensors, for which `toEqual` takes too long. */

import { expect } from "vitest";
import type { Tensor } from "../../src/index.js";

/** Shape, type and bits are the same. */
export function expectSame(got: Tensor, wanted: Tensor): void {
  const { dtype, shape, dims } = wanted;
  expect(got).toMatchObject({ dtype, shape, dims });
  expect(Buffer.compare(got.bytes, wanted.bytes)).toBe(0);
}
