import { describe, expect, test } from "vitest";
import { IndexOutOfRangeError, InvalidRequestError, Tensor } from "../../src/index.js";

function bytes(...values: number[]): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(values);
}

test.each([
  ["BOOL", bytes(0, 1), Uint8Array, [0, 1]],
  ["U8", bytes(255, 1), Uint8Array, [255, 1]],
  ["I8", bytes(255, 1), Int8Array, [-1, 1]],
  ["I16", bytes(0, 128, 1, 0), Int16Array, [-32768, 1]],
  ["I32", bytes(255, 255, 255, 255, 2, 0, 0, 0), Int32Array, [-1, 2]],
  ["I64", bytes(254, 255, 255, 255, 255, 255, 255, 255, 3, 0, 0, 0, 0, 0, 0, 0), BigInt64Array, [-2, 3]],
  ["F16", bytes(0x00, 0x3c, 0x01, 0x00), Uint16Array, [1, 2 ** -24]],
  ["BF16", bytes(0x80, 0x3f, 0x20, 0xc1), Uint16Array, [1, -10]],
  ["F32", bytes(0, 0, 128, 63, 0, 0, 32, 193), Float32Array, [1, -10]],
  ["F64", bytes(0, 0, 0, 0, 0, 0, 240, 63, 0, 0, 0, 0, 0, 0, 36, 192), Float64Array, [1, -10]],
] as const)("%s from literal bytes", (dtype, raw, kind, values) => {
  const tensor = new Tensor({ dtype, shape: [2], dims: ["pos"], bytes: raw });
  expect(tensor.data).toBeInstanceOf(kind);
  expect([...tensor.toFloat64()]).toEqual(values);
  expect([...tensor.toFloat32()]).toEqual(values);
  expect([tensor.at(0), tensor.at(-1)]).toEqual(values);
});

test("a tensor at an odd place in memory", () => {
  const raw = bytes(9, 0, 0, 128, 63, 9).subarray(1, 5);
  expect(new Tensor({ dtype: "F32", shape: [], bytes: raw }).at()).toBe(1);
});

test.each([[["1"]], [[1, undefined]], [[null]], [[1n]]])("%o are no numbers", (values) => {
  const refused = expect.objectContaining({ name: "InvalidRequestError", reason: "INVALID_DTYPE" });
  expect(() => Tensor.ofFloats(values as never)).toThrow(refused);
});

test("axes are in C order", () => {
  const tensor = Tensor.ofFloats([0, 1, 2, 3, 4, 5], [2, 3]);
  expect([tensor.at(1, 0), tensor.at(0, 2), tensor.at(-1, -1)]).toEqual([3, 2, 5]);
});

test("an empty tensor", () => {
  const tensor = new Tensor({ dtype: "F32", shape: [2 ** 52, 0, 2 ** 52], bytes: bytes() });
  expect(tensor.length).toBe(0);
  expect(() => tensor.at(0, 0, 0)).toThrow(IndexOutOfRangeError);
});

test("F32 is not copied", () => {
  const tensor = Tensor.ofFloats([1, 2]);
  (tensor.toFloat32() as Float32Array)[1] = 5;
  expect(tensor.at(1)).toBe(5);
});

test("an integer that no number holds is refused by `at`, and exact in `data`", () => {
  const tensor = new Tensor({ dtype: "I64", shape: [], bytes: bytes(1, 0, 0, 0, 0, 0, 32, 0) });
  expect(tensor.data[0]).toBe(2n ** 53n + 1n);
  expect(() => tensor.at()).toThrow(IndexOutOfRangeError);
});

describe("what does not fit together", () => {
  test.each([
    [{ dtype: "F32", shape: [2], bytes: bytes(0, 0, 0, 0) }, "INVALID_SHAPE"],
    [{ dtype: "F32", shape: [-1], bytes: bytes() }, "INVALID_SHAPE"],
    [{ dtype: "F32", shape: [0.5], bytes: bytes(0, 0) }, "INVALID_SHAPE"],
    [{ dtype: "F32", shape: [1], dims: ["a", "b"], bytes: bytes(0, 0, 0, 0) }, "INVALID_SHAPE"],
    [{ dtype: "C64", shape: [], bytes: bytes() }, "INVALID_DTYPE"],
  ])("%j", (parts, reason) => {
    expect(() => new Tensor(parts as never)).toThrow(InvalidRequestError);
    expect(() => new Tensor(parts as never)).toThrow(expect.objectContaining({ reason }));
  });

  test("another number of indices", () => {
    expect(() => Tensor.ofFloats([1]).at()).toThrow(expect.objectContaining({ reason: "INVALID_SHAPE" }));
  });

  test.each([[2], [-3], [0.5], [Number.NaN]])("the index %d", (index) => {
    expect(() => Tensor.ofFloats([1, 2]).at(index)).toThrow(IndexOutOfRangeError);
  });
});
