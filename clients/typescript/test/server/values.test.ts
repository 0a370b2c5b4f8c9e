/** Values of the real server: what they are, and that all ways to ask for them give the same. */

import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { type Read, Tensor } from "../../src/index.js";
import { connect, type RemoteTransparentLlm } from "../../src/node.js";

const SENTENCES = ["My lord, I shall reply", "Hello"];

let llm: RemoteTransparentLlm;

beforeAll(async () => {
  llm = connect(inject("target"), { cacheBytes: 0 });
  await llm.run(SENTENCES);
});

afterAll(() => llm.close());

function method(of: RemoteTransparentLlm, [name, ...args]: Read, options = {}): Promise<Tensor> {
  const given = name === "attentionOutput" && args.length === 3 ? [...args, null] : args;
  return (of as never as Record<string, (...all: unknown[]) => Promise<Tensor>>)[name]?.(...given, options) as never;
}

test("what a run brings, without a call", async () => {
  const tokens = llm.tokens();
  const [batch, pos] = tokens.shape as [number, number];
  expect([batch, tokens.dtype, tokens.dims]).toEqual([2, "I64", ["batch", "pos"]]);
  expect(llm.batchSize()).toBe(2);
  const mask = llm.mask();
  expect([mask.dtype, mask.shape, mask.at(0, -1), mask.at(1, -1)]).toEqual(["BOOL", [2, pos], 1, 0]);
  expect(llm.tokens({ slices: { pos: { start: -1 } } }).shape).toEqual([2, 1]);
  const first = llm.tokens({ slices: { batch: { stop: 1 } } });
  const strings = await llm.tokensToStrings(first.data as BigInt64Array);
  expect(strings.slice(1).join("")).toBe(SENTENCES[0]);
});

test("tokens of the server are those of the run", async () => {
  const [tokens] = await llm.fetch([["tokens"]]);
  expect(tokens).toEqual(llm.tokens());
});

test("the same tokens give the same run", async () => {
  const twin = llm.copy();
  const rows = [0, 1].map((row) => {
    const kept = llm.mask({ slices: { batch: { start: row, stop: row + 1 } } }).data;
    return Array.from(llm.tokens({ slices: { batch: { start: row, stop: row + 1 } } }).toFloat64()).filter(
      (_, i) => kept[i],
    );
  });
  await twin.runTokens(rows);
  expect(twin.runId).toBe(llm.runId);
});

test("a copy has its own current run", async () => {
  const twin = llm.copy();
  expect(twin.runId).toBe(llm.runId);
  await twin.run(["Something else"]);
  expect(twin.runId).not.toBe(llm.runId);
  expect(llm.batchSize()).toBe(2);
});

const READS: [Read, (string | number)[]][] = [
  [["logits"], [2, "pos", "d_vocab"]],
  [
    ["residualIn", 0],
    [2, "pos", "d_model"],
  ],
  [
    ["residualAfterAttn", 1],
    [2, "pos", "d_model"],
  ],
  [
    ["residualOut", 3],
    [2, "pos", "d_model"],
  ],
  [
    ["ffnOut", 1],
    [2, "pos", "d_model"],
  ],
  [
    ["decomposedFfnOut", 0, 1, 2],
    ["hidden", "d_model"],
  ],
  [["neuronActivations", 0, 1, 2], ["d_ffn"]],
  [
    ["attentionMatrix", 0, 1, 2],
    ["query_pos", "key_pos"],
  ],
  [["attentionOutput", 0, 1, 2], ["d_model"]],
  [["attentionOutput", 0, 1, 2, 3], ["d_model"]],
  [
    ["decomposedAttn", 0, 1],
    ["target", "source", "head", "d_model"],
  ],
];

describe("every read", () => {
  test.each(READS)("%j has its axes", async (read, axes) => {
    const value = await method(llm, read);
    expect(value.dims).toEqual(axes.map((axis) => (axis === 2 ? "batch" : axis)));
    expect(value.dtype).toBe("F32");
  });

  test("comes by fetch as it comes alone", async () => {
    const reads = READS.map(([read]) => read);
    const alone = await Promise.all(reads.map((read) => method(llm, read)));
    expect(await llm.fetch(reads)).toEqual(alone);
  });

  test.each(READS)("%j is cut as it says", async (read) => {
    const whole = await method(llm, read);
    const axis = whole.dims.at(-1) as string;
    const part = await method(llm, read, { slices: { [axis]: { start: 1, stop: 6, step: 2 } } });
    const width = whole.shape.at(-1) as number;
    const kept = whole.toFloat32().filter((_, i) => [1, 3, 5].includes(i % width));
    expect(part.toFloat32()).toEqual(kept);
  });

  test.each([["F16"], ["BF16"], ["F64"]] as const)("comes in %s", async (dtype) => {
    const reads = READS.map(([read]) => read);
    const exact = await llm.fetch(reads);
    const rounded = await llm.fetch(reads, { dtype });
    const precision = { F16: 2 ** -11, BF16: 2 ** -8, F64: 0 }[dtype];
    rounded.forEach((value, i) => {
      expect(value.dtype).toBe(dtype);
      const wanted = (exact[i] as Tensor).toFloat64();
      const worst = Math.max(
        ...value
          .toFloat64()
          .map((x, k) => Math.abs(x - (wanted[k] as number)) / (Math.abs(wanted[k] as number) + 1e-3)),
      );
      expect(worst).toBeLessThanOrEqual(precision);
    });
  });
});

/**
 * With no slice of an axis that it has, a decomposition travels as factors; with one that cuts nothing off, as it is.
 */
test.each<[Read]>([[["decomposedAttn", 0, 2]], [["decomposedFfnOut", 1, 2, 1]]])(
  "%j multiplied here has the bits of the server's",
  async (read) => {
    const factored = await method(llm, read);
    const dense = await method(llm, read, { slices: { d_model: { start: 0 } } });
    expect(factored).toEqual(dense);
  },
);

test("a layer's parts add up", async () => {
  const [before, after, ffn, attn] = (await llm.fetch([
    ["residualAfterAttn", 1],
    ["residualOut", 1],
    ["ffnOut", 1],
    ["attentionMatrix", 0, 1, 0],
  ])) as [Tensor, Tensor, Tensor, Tensor];
  const worst = Math.max(
    ...after
      .toFloat32()
      .map((x, i) => Math.abs(x - (before.toFloat32()[i] as number) - (ffn.toFloat32()[i] as number))),
  );
  expect(worst).toBeLessThan(1e-4);
  const [queries, keys] = attn.shape as [number, number];
  for (let query = 0; query < queries; query++) {
    const sum = Array.from({ length: keys }, (_, key) => attn.at(query, key)).reduce((a, b) => a + b);
    expect(sum).toBeCloseTo(1, 4);
  }
});

test("unembed of the last residual is the logits", async () => {
  const [residual, logits] = (await llm.fetch([["residualOut", 3], ["logits"]], {
    slices: { batch: { stop: 1 }, pos: { start: 2, stop: 3 } },
  })) as [Tensor, Tensor];
  const projected = await llm.unembed(residual.toFloat32(), true);
  expect(projected.dims).toEqual(["vocab"]);
  const worst = Math.max(...projected.toFloat32().map((x, i) => Math.abs(x - (logits.toFloat32()[i] as number))));
  expect(worst).toBeLessThan(1e-3);
});

test("the model alone needs no run", async () => {
  const fresh = connect(inject("target"));
  expect(await fresh.isServing()).toBe(true);
  const info = await fresh.modelInfo();
  const { models, apiVersion } = await fresh.serverInfo();
  expect(models[0]).toMatchObject({ ...info, dtype: "F32", state: "loaded" });
  expect(apiVersion).toMatch(/^1\.\d+$/);
  expect((await fresh.neuronOutput(0, 3)).shape).toEqual([info.dModel]);
  fresh.close();
});

test("progress goes up to the end", async () => {
  const seen: number[] = [];
  const value = await llm.logits({
    onProgress: ({ receivedBytes, totalBytes }) => seen.push(receivedBytes / totalBytes),
  });
  expect(seen.at(-1)).toBe(1);
  expect(seen).toEqual([...seen].sort((a, b) => a - b));
  expect(value.length).toBeGreaterThan(0);
});

test("a tensor that is written to after the call is sent as it was", async () => {
  const vector = Tensor.ofFloats(Float32Array.from({ length: 128 }, (_, i) => Math.sin(i)));
  const wanted = await llm.unembed(vector, true);
  const again = llm.unembed(vector, true);
  vector.bytes.fill(0);
  expect((await again).bytes).toEqual(wanted.bytes);
});
