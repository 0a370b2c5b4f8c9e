import { describe, expect, test } from "vitest";
import { decodeBf16, decodeF16, encodeBf16, encodeF16 } from "../../src/halves.js";

function decoded(decode: typeof decodeF16, bits: number): number {
  const out = new Float32Array(1);
  decode(Uint16Array.of(bits), out);
  return out[0] as number;
}

function encoded(encode: typeof encodeF16, value: number): number {
  const out = new Uint16Array(1);
  encode(Float32Array.of(value), out);
  return out[0] as number;
}

/** Bits, and the number that IEEE 754 gives them. */
const F16: [number, number][] = [
  [0x0000, 0],
  [0x8000, -0],
  [0x0001, 2 ** -24],
  [0x03ff, 1023 * 2 ** -24],
  [0x0400, 2 ** -14],
  [0x3c00, 1],
  [0xc000, -2],
  [0x3555, 0.333251953125],
  [0x7bff, 65504],
  [0x7c00, Number.POSITIVE_INFINITY],
  [0xfc00, Number.NEGATIVE_INFINITY],
];

const BF16: [number, number][] = [
  [0x0000, 0],
  [0x8000, -0],
  [0x0001, 2 ** -133],
  [0x007f, 127 * 2 ** -133],
  [0x0080, 2 ** -126],
  [0x3f80, 1],
  [0xc000, -2],
  [0x3eab, 0.333984375],
  [0x7f7f, 255 * 2 ** 120],
  [0x7f80, Number.POSITIVE_INFINITY],
  [0xff80, Number.NEGATIVE_INFINITY],
];

describe.each([
  ["F16", decodeF16, encodeF16, F16],
  ["BF16", decodeBf16, encodeBf16, BF16],
] as const)("%s", (_, decode, encode, table) => {
  test.each(table)("%i is %d", (bits, value) => {
    expect(decoded(decode, bits)).toBe(value);
    expect(encoded(encode, value)).toBe(bits);
  });

  test("every number comes back as it went", () => {
    const all = Uint16Array.from({ length: 2 ** 16 }, (_value, bits) => bits);
    const numbers = new Float32Array(all.length);
    decode(all, numbers);
    const again = new Uint16Array(all.length);
    encode(numbers, again);
    const changed = all.filter((bits, i) => !Number.isNaN(numbers[i]) && again[i] !== bits);
    expect(changed).toEqual(new Uint16Array(0));
  });

  test("NaN stays one", () => {
    expect(decoded(decode, encoded(encode, Number.NaN))).toBeNaN();
    expect(decoded(decode, 0xffff)).toBeNaN();
  });
});

test.each([
  [1 + 2 ** -11, 0x3c00], // half way, to the even one below
  [1 + 3 * 2 ** -11, 0x3c02], // half way, to the even one above
  [1 + 2 ** -11 + 2 ** -20, 0x3c01],
  [65519, 0x7bff],
  [65520, 0x7c00], // half way to what would be the next one
  [2 ** -25, 0], // half way to the smallest
  [1.5 * 2 ** -24, 2], // half way between subnormals
  [2 ** -14 - 2 ** -26, 0x0400], // up into the normal ones
  [1e30, 0x7c00],
])("%d is rounded to the F16 %i", (value, bits) => {
  expect(encoded(encodeF16, value)).toBe(bits);
});

test.each([
  [1 + 2 ** -8, 0x3f80],
  [1 + 3 * 2 ** -8, 0x3f82],
  [1 + 2 ** -8 + 2 ** -20, 0x3f81],
  [3.4028234663852886e38, 0x7f80],
])("%d is rounded to the BF16 %i", (value, bits) => {
  expect(encoded(encodeBf16, value)).toBe(bits);
});
