import { expect, test } from "vitest";
import { InvalidRequestError, type Slice, Tensor } from "../../src/index.js";
import { cut, requireSlices, slicesToWire } from "../../src/slices.js";

/** [2 5] with 0 to 9. */
const TENSOR = new Tensor({ ...Tensor.ofFloats([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [2, 5]), dims: ["batch", "pos"] });

/** As Python's `list(range(5))[start:stop:step]`. */
test.each<[Slice, number[]]>([
  [{}, [0, 1, 2, 3, 4]],
  [{ start: -1 }, [4]],
  [{ start: 1, stop: 3 }, [1, 2]],
  [{ stop: -2 }, [0, 1, 2]],
  [{ start: 1, step: 2 }, [1, 3]],
  [{ stop: 0 }, []],
  [{ start: 4, stop: 2 }, []],
  [{ start: -100, stop: 100, step: 100 }, [0]],
  [{ start: null, stop: null, step: null }, [0, 1, 2, 3, 4]],
])("%j of an axis of 5", (part, kept) => {
  const row = cut(TENSOR, { batch: { stop: 1 }, pos: part });
  expect([...row.toFloat64()]).toEqual(kept);
  expect([row.shape, row.dims]).toEqual([
    [1, kept.length],
    ["batch", "pos"],
  ]);
});

test("other axes are ignored, and what is cut is a copy", () => {
  const copy = cut(TENSOR, { d_model: { stop: 1 } });
  copy.bytes.fill(0);
  expect(TENSOR.at(1, 4)).toBe(9);
});

test("only axes of the value are sent, and absent bounds are not", () => {
  const wire = slicesToWire({ pos: { start: -1 }, head: { stop: 2 } }, ["batch", "pos"]);
  expect(wire).toMatchObject([{ axis: "pos", start: -1n }]);
  expect(wire[0]?.stop).toBeUndefined();
});

test.each([
  [{ nope: {} }, "nope"],
  [{ pos: { step: 0 } }, "pos"],
  [{ pos: { step: -1 } }, "pos"],
  [{ pos: { start: 0.5 } }, "pos"],
  [{ pos: 3 }, "pos"],
  [{ pos: null }, "pos"],
  [{ pos: [-1] }, "pos"],
  [{ pos: { begin: 1 } }, "pos"],
])("%j is refused", (slices, axis) => {
  expect(() => requireSlices(slices as never)).toThrow(InvalidRequestError);
  expect(() => requireSlices(slices as never)).toThrow(
    expect.objectContaining({ reason: "INVALID_SLICE", metadata: { axis } }),
  );
});
