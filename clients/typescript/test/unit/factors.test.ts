import { describe, expect, test } from "vitest";
import { sizeOf } from "../../src/dtypes.js";
import { attnProduct, ffnProduct } from "../../src/factors.js";
import type { DtypeName } from "../../src/index.js";
import { InternalError, Tensor, TooLargeError } from "../../src/index.js";
import { Scope } from "../../src/scope.js";

/** Of a product that nobody limits. */
const MOST = 2 ** 47;

function attn(factors: Map<string, Tensor>, maxBytes = MOST, scope = new Scope(60_000)): Promise<Tensor> {
  return attnProduct(factors, maxBytes, scope);
}

function ffn(factors: Map<string, Tensor>, weights: Tensor, scope = new Scope(60_000)): Promise<Tensor> {
  return ffnProduct(factors, weights, MOST, scope);
}

function tensor(dtype: DtypeName, shape: number[], hex: string): Tensor {
  const bytes = new Uint8Array(hex.length / 2);
  bytes.forEach((_, i) => {
    bytes[i] = Number.parseInt(hex.slice(i * 2, i * 2 + 2), 16);
  });
  return new Tensor({ dtype, shape, bytes });
}

function hexOf({ bytes }: Tensor): string {
  return Buffer.from(bytes).toString("hex");
}

function zeros(dtype: DtypeName, ...shape: number[]): Tensor {
  const bytes = new Uint8Array(shape.reduce((product, size) => product * size, sizeOf(dtype)));
  return new Tensor({ dtype, shape, bytes });
}

test("a product without elements takes no time, however long its axes", async () => {
  const factors = { pattern: zeros("F32", 0, 2 ** 33, 1), value_out: zeros("F32", 1, 0, 4) };
  expect((await attn(new Map(Object.entries(factors)))).shape).toEqual([2 ** 33, 1, 0, 4]);
});

test("a product for which there is no memory", async () => {
  const factors = { pattern: zeros("F32", 1, 2 ** 20, 1), value_out: zeros("F32", 1, 1, 2 ** 20) };
  const wanted = expect.objectContaining({ name: "TooLargeError", metadata: { needed: String(2 ** 42) } });
  await expect(attn(new Map(Object.entries(factors)))).rejects.toThrow(wanted);
});

function spans(...bounds: number[]): Tensor {
  const bytes = new Uint8Array(BigInt64Array.from(bounds, BigInt).buffer);
  return new Tensor({ dtype: "I64", shape: [bounds.length / 2, 2], bytes });
}

/** Random factors, and what the Python client makes of them. */
const ATTN: [DtypeName, string, string, string, string][] = [
  [
    "F32",
    "25f4413fd6018f3e185fce3e48143c3fe0dfef3c89c34c3f9655cb3e851e413f4fcb113f80a7e03e9080233f8150063f",
    "14eac2bf136cc33eae8883bf3a2410bf276d64bfbd976ebdaa3348beeb3377bfd246d83ec6dd883ee4a6d7be3cbd02bf",
    "184dc9bf5269fcbd3c916540b767eabf",
    "9a3de83f88fb11bd7e4d243f21c4e13ca4adc83e2d6a033bab836d3e67deb73da41889beb79259bcd725c13ea3d3123d2b6a80c0657603bf2705cfbfdba4e73e13f0bfbd7cb44c3b3e53e5beba90903f05219b3f647ac8bee2ec4abf843bfb3e",
  ],
  [
    "BF16",
    "3f3f073f2a3f1c3f2f3f3f3f173d403f183efb3d083fd43e",
    "0ca10dbed40f22bf4b25613f4d262fbfbb15e83ea812953e61eb54bf2f710dbfa4ae223f712bcbbe133528bfb645d2bf",
    "66f47a3f66a22cbd411152bfcb68a03e",
    "cfbda33c023d8b3a703ed4bb1dbf8f3cd43e363cc4bd283c8e3df8bdb5bdd7bc82be7f3dba3ebcbdc7bebebd653e5abe",
  ],
  [
    "F16",
    "56341237313277393d3930368a394b39713ab23a4a35e83b",
    "a57a31bf2dc32abe46f87fbf75e3d2bfeb504f3fb204633d8726913f555b08bf1bc2283faf56ccbfbef5c0bec38746c0",
    "9bb5cbbd49a438bffea8a23f0d8c04bb",
    "c9242c28682c953a8ea886a4c7ac11347fa22133ba27353fd1b88d0b41bcb6196439cf849f37d60d2f351d1593b7591e",
  ],
];

const FFN: [DtypeName, string, string, string][] = [
  [
    "F32",
    "36a2cc3ff774a3bf23a8a63e",
    "7c52f5be5883b03fe2d32140bb4cd23e09ee7cbf7f7768bf72d20a3f51cde13d9d9310c0aa501b3f",
    "d344093fb688c5bf0000000000000000601862bf9dcd4fbfc80bfdbd03cccdbc0000000000000000",
  ],
  ["BF16", "91bfc13e91be", "24c0b7bf003f0b3fd0be913f8ebfb33e45bf17be", "02c091bf00000000dc3d99be61be8e3d00000000"],
  ["F16", "61bcd0389639", "67ba273edf3d613e1dbe103c76b225bd963ae1b8", "e8b8b73c000000002639d8b6512e073900000000"],
];

test.each(ATTN)("decomposed_attn in %s", async (dtype, pattern, valueOut, gain, product) => {
  const factors = new Map([
    ["pattern", tensor(dtype, [2, 2, 3], pattern)],
    ["value_out", tensor("F32", [3, 2, 2], valueOut)],
    ["gain", tensor("F32", [2, 2], gain)],
  ]);
  const value = await attn(factors);
  expect([value.dtype, value.shape, hexOf(value)]).toEqual([dtype, [2, 3, 2, 2], product]);
  expect(value.dims).toEqual(["target", "source", "head", "d_model"]);
});

test.each(FFN)(
  "decomposed_ffn_out in %s, of some neurons, with a gain",
  async (dtype, activations, weights, product) => {
    const factors = new Map([
      ["activations", tensor(dtype, [3], activations)],
      ["spans", spans(0, 1, 2, 4)],
      ["gain", tensor("F32", [], "333333bf")],
    ]);
    const value = await ffn(factors, tensor(dtype, [5, 2], weights));
    expect([value.dtype, value.shape, hexOf(value)]).toEqual([dtype, [5, 2], product]);
    expect(value.dims).toEqual(["hidden", "d_model"]);
  },
);

test("a product is refused before its memory is taken", async () => {
  const factors = new Map([
    ["pattern", zeros("F32", 1, 3, 3)],
    ["value_out", zeros("F32", 3, 1, 2)],
  ]);
  await expect(attn(factors, 71)).rejects.toThrow(TooLargeError);
  expect((await attn(factors, 72)).shape).toEqual([3, 3, 1, 2]);
});

describe("factors that do not fit together", () => {
  const pattern = zeros("F32", 2, 2, 3);
  const valueOut = zeros("F32", 3, 2, 4);
  test.each<[string, Record<string, Tensor>]>([
    ["no pattern", { value_out: valueOut }],
    ["no value_out", { pattern }],
    ["a pattern of two axes", { pattern: zeros("F32", 2, 3), value_out: valueOut }],
    ["other heads", { pattern, value_out: zeros("F32", 3, 3, 4) }],
    ["value_out in half precision", { pattern, value_out: zeros("F16", 3, 2, 4) }],
    ["a pattern of integers", { pattern: zeros("I32", 2, 2, 3), value_out: valueOut }],
    ["a gain for other targets", { pattern, value_out: valueOut, gain: zeros("F32", 3, 4) }],
  ])("%s", async (_, factors) => {
    await expect(attn(new Map(Object.entries(factors)))).rejects.toThrow(InternalError);
  });

  const weights = zeros("F32", 5, 2);
  test.each<[string, Record<string, Tensor>]>([
    ["no activations", {}],
    ["fewer activations than neurons", { activations: zeros("F32", 4) }],
    ["a span past the end", { activations: zeros("F32", 3), spans: spans(3, 6) }],
    ["a span backwards", { activations: zeros("F32", 1), spans: spans(0, 3, 5, 3) }],
    ["spans that overlap", { activations: zeros("F32", 4), spans: spans(0, 2, 1, 3) }],
    ["a negative span", { activations: zeros("F32", 1), spans: spans(-1, 0) }],
    ["more spans than neurons", { activations: zeros("F32", 5), spans: spans(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5) }],
    ["spans of another type", { activations: zeros("F32", 5), spans: zeros("I32", 1, 2) }],
    ["a gain for another width", { activations: zeros("F32", 5), gain: zeros("F32", 3) }],
  ])("%s", async (_, factors) => {
    await expect(ffn(new Map(Object.entries(factors)), weights)).rejects.toThrow(InternalError);
  });

  test("weights of one axis", async () => {
    const factors = new Map([["activations", zeros("F32", 5)]]);
    await expect(ffn(factors, zeros("F32", 5))).rejects.toThrow(InternalError);
  });
});

test("a product ends with its call", async () => {
  const factors = new Map([
    ["pattern", zeros("F32", 1, 400, 400)],
    ["value_out", zeros("F32", 400, 1, 400)],
  ]);
  const scope = new Scope(60_000);
  const product = attn(factors, MOST, scope);
  scope.cancel();
  await expect(product).rejects.toMatchObject({ name: "CancelledError" });
  await expect(attn(factors, MOST, new Scope(1))).rejects.toMatchObject({ name: "DeadlineError" });
  const weights = zeros("F32", 2000, 20_000);
  await expect(ffn(new Map([["activations", zeros("F32", 2000)]]), weights, new Scope(1))).rejects.toMatchObject({
    name: "DeadlineError",
  });
});
