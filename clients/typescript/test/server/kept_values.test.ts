/** Values of current runs that are kept: asking twice sends nothing twice, and nobody can spoil what is kept. */

import { afterEach, describe, expect, inject, test } from "vitest";
import { connect, type Progress, type ReadOptions, type RemoteTransparentLlm, type Tensor } from "../../src/node.js";

/** Two rows, of which the second is shorter. */
const ROWS = [
  [1, 2, 3, 4, 5, 6, 7],
  [9, 8, 7],
];
/** Of the residual stream of one row of seven positions. */
const STREAM = 7 * 128 * 4;

const closing: RemoteTransparentLlm[] = [];

afterEach(() => {
  for (const llm of closing.splice(0)) {
    llm.close();
  }
});

async function ran(rows: number[][], cacheBytes?: number): Promise<RemoteTransparentLlm> {
  const llm = connect(inject("target"), { timeoutMs: 30_000, cacheBytes });
  closing.push(llm);
  await llm.runTokens(rows);
  return llm;
}

/** Whether a read brings anything of a server. */
async function isSent(read: (options: ReadOptions) => Promise<unknown>): Promise<boolean> {
  let received = 0;
  const onProgress = ({ receivedBytes }: Progress): void => {
    received = receivedBytes;
  };
  await read({ onProgress });
  return received > 0;
}

type Reading<T> = (llm: RemoteTransparentLlm, options?: ReadOptions) => Promise<T>;

const READS: [string, Reading<unknown>][] = [
  ["a tensor", (llm, options) => llm.residualOut(1, options)],
  ["another type", (llm, options) => llm.residualOut(1, { ...options, dtype: "F16" })],
  ["a part", (llm, options) => llm.residualOut(1, { ...options, slices: { pos: { start: 1, stop: 3 } } })],
  ["a product of attention", (llm, options) => llm.decomposedAttn(0, 1, options)],
  ["a product of neurons", (llm, options) => llm.decomposedFfnOut(0, 1, -1, options)],
  ["an analysis", (llm, options) => llm.layerLens(0, 2, { ...options, k: 4 })],
  [
    "many",
    (llm, options) =>
      llm.fetchParts(
        [
          ["residualIn", 3],
          ["layerLens", 0, 1, { k: 2 }],
        ],
        options,
      ),
  ],
];

describe.each(READS)("%s", (_, read) => {
  test("is sent once, the same each time, to copies too", async () => {
    const llm = await ran(ROWS);
    const first = await read(llm);
    expect(await isSent(async (options) => expect(await read(llm, options)).toEqual(first))).toBe(false);
    expect(await isSent(async (options) => expect(await read(llm.copy(), options)).toEqual(first))).toBe(false);
    await llm.release();
    expect(await isSent((options) => read(llm, options))).toBe(false);
  });

  test("each time where nothing is kept", async () => {
    const llm = await ran(ROWS, 0);
    const first = await read(llm);
    expect(await isSent(async (options) => expect(await read(llm, options)).toEqual(first))).toBe(true);
  });
});

test.each<[string, Reading<Tensor>, Reading<Tensor>]>([
  ["layers from the end", (llm) => llm.residualOut(-3), (llm, options) => llm.residualOut(1, options)],
  [
    "heads from the end",
    (llm) => llm.attentionMatrix(0, 0, -1),
    (llm, options) => llm.attentionMatrix(0, 0, 3, options),
  ],
  [
    "rows from the end",
    (llm) => llm.neuronActivations(-2, 0, 1),
    (llm, options) => llm.neuronActivations(0, 0, 1, options),
  ],
  [
    "the last token of a shorter row",
    (llm) => llm.neuronActivations(1, 0, -1),
    (llm, options) => llm.neuronActivations(1, 0, 2, options),
  ],
  ["the next layer's stream", (llm) => llm.residualOut(1), (llm, options) => llm.residualIn(2, options)],
  ["the stream of the layer before", (llm) => llm.residualIn(-1), (llm, options) => llm.residualOut(2, options)],
  [
    "slices in words",
    (llm) => llm.logits({ slices: { vocab: { start: 0, stop: 5 } } }),
    (llm, options) => llm.logits({ ...options, slices: { d_vocab: { stop: 5, step: 1 } } }),
  ],
])("%s mean the same value", async (_, one, same) => {
  const llm = await ran(ROWS);
  await llm.residualIn(-4); // so that the model is known
  const first = await one(llm);
  expect(await isSent(async (options) => expect(await same(llm, options)).toEqual(first))).toBe(false);
});

test("other values are others", async () => {
  const llm = await ran(ROWS);
  await llm.layerLens(0, 2, { k: 4 });
  expect(await isSent((options) => llm.layerLens(0, 2, { ...options, k: 5 }))).toBe(true);
  expect(await isSent((options) => llm.layerLens(0, 1, { ...options, k: 4 }))).toBe(true);
  await llm.residualOut(-1);
  await expect(llm.residualIn(4)).rejects.toMatchObject({ name: "IndexOutOfRangeError" });
  await llm.attentionOutput(0, 1, 2, 0);
  expect(await isSent((options) => llm.attentionOutput(0, 1, 2, null, options))).toBe(true);
});

test("who writes into an answer spoils no other one", async () => {
  const llm = await ran(ROWS);
  const wanted = (await llm.copy().residualOut(1)).bytes.slice();
  for (let time = 0; time < 3; time++) {
    const value = await llm.residualOut(1);
    expect(value.bytes).toEqual(wanted);
    value.toFloat32().fill(7);
    (value.shape as number[])[0] = 99;
  }
  const lens = await llm.layerLens(0, 2, { k: 4 });
  const ids = lens.topIds.bytes.slice();
  lens.topIds.bytes.fill(1);
  expect((await llm.layerLens(0, 2, { k: 4 })).topIds.bytes).toEqual(ids);
  const [parts] = await llm.fetchParts([["layerLens", 0, 2, { k: 4 }]]);
  parts?.get("top_ids")?.bytes.fill(2);
  expect((await llm.layerLens(0, 2, { k: 4 })).topIds.bytes).toEqual(ids);
  const product = await llm.decomposedAttn(0, 1);
  const bytes = product.bytes.slice();
  product.bytes.fill(3);
  expect((await llm.decomposedAttn(0, 1)).bytes).toEqual(bytes);
});

test("a new run forgets what nobody has any more, and a copy that has it goes on with it", async () => {
  const llm = await ran(ROWS);
  await llm.residualOut(1);
  const copied = llm.copy();
  await llm.runTokens([[3, 2, 1]]);
  expect(await isSent((options) => llm.residualOut(1, options))).toBe(true);
  expect(await isSent((options) => copied.residualOut(1, options))).toBe(false);
  await copied.runTokens([[3, 2, 1]]);
  await copied.runTokens(ROWS);
  expect(await isSent((options) => copied.residualOut(1, options))).toBe(true);
});

test("the least recently used go, and what is over a quarter of the limit is not kept", async () => {
  const llm = await ran([ROWS[0] as number[]], 4 * STREAM);
  for (const layer of [0, 1, 2, 3]) {
    await llm.residualOut(layer);
  }
  expect(await isSent((options) => llm.residualOut(0, options))).toBe(false); // and now it is the last
  await llm.residualAfterAttn(0);
  expect(await isSent((options) => llm.residualOut(0, options))).toBe(false);
  expect(await isSent((options) => llm.residualOut(1, options))).toBe(true);
  const small = await ran([ROWS[0] as number[]], 4 * STREAM - 1);
  await small.residualOut(0);
  expect(await isSent((options) => small.residualOut(0, options))).toBe(true);
});

test("some of many are sent, those that are not kept", async () => {
  const llm = await ran(ROWS);
  const kept = await llm.residualOut(1);
  const progress: number[] = [];
  const values = await llm.fetch(
    [
      ["residualOut", 1],
      ["residualAfterAttn", 1],
    ],
    {
      onProgress: ({ totalBytes }) => progress.push(totalBytes),
    },
  );
  expect(values[0]).toEqual(kept);
  expect(Math.max(...progress)).toBe(kept.bytes.byteLength);
});

test.each([-1, Number.NaN])("cacheBytes of %d is refused", (cacheBytes) => {
  expect(() => connect(inject("target"), { cacheBytes })).toThrow("cacheBytes is");
});
