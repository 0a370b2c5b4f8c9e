/** Weights of heads and what is made of them, of a real server and of some that lie. */

import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { connect, type HeadWeights, type RemoteTransparentLlm, type Tensor } from "../../src/node.js";
import { chunkOf, DESCRIBED, startLiar } from "../support/liar.js";

type Matrix = readonly Float64Array[];

let llm: RemoteTransparentLlm;

beforeAll(() => {
  llm = connect(inject("target"));
});

afterAll(() => llm.close());

function matrix(tensor: Tensor): Matrix {
  const [rows, width] = tensor.shape as [number, number];
  const data = tensor.toFloat64();
  return Array.from({ length: rows }, (_, row) => data.subarray(row * width, (row + 1) * width));
}

function transposed(of: Matrix): Matrix {
  return Array.from(of[0] as Float64Array, (_, column) => Float64Array.from(of, (row) => row[column] as number));
}

function product(a: Matrix, b: Matrix): Matrix {
  const columns = transposed(b);
  return a.map((row) =>
    Float64Array.from(columns, (column) => row.reduce((sum, x, i) => sum + x * (column[i] as number), 0)),
  );
}

function norm(of: Matrix): number {
  return Math.sqrt(of.reduce((sum, row) => sum + row.reduce((ofRow, x) => ofRow + x * x, 0), 0));
}

/** What `kind` of the later head reads. */
function read({ q, k, v, o }: HeadWeights, kind: "q" | "k" | "v"): Matrix {
  const [Q, K, V, O] = [q, k, v, o].map(matrix) as [Matrix, Matrix, Matrix, Matrix];
  return { q: () => product(Q, transposed(K)), k: () => product(K, transposed(Q)), v: () => product(V, O) }[kind]();
}

test.each(["q", "k", "v"] as const)(
  "%s-composition is what the weights of two heads say, before any run",
  async (kind) => {
    const [earlier, later] = [await llm.headWeights(0, 1), await llm.headWeights(-1, 2)];
    const [A, B] = [product(matrix(earlier.v), matrix(earlier.o)), read(later, kind)];
    const scores = await llm.compositionScores({ kind });
    const { nLayers, nHeads } = await llm.modelInfo();
    expect(scores.shape).toEqual([nLayers, nHeads, nLayers, nHeads]);
    expect(scores.dims).toEqual(["layer", "head", "later_layer", "later_head"]);
    expect(scores.at(0, 1, -1, 2)).toBeCloseTo(norm(product(A, B)) / (norm(A) * norm(B)), 4);
    expect(scores.at(-1, 2, 0, 1)).toBeNaN();
    const some = await llm.compositionScores({ kind, slices: { layer: { stop: 1 }, later_layer: { start: -1 } } });
    expect(some.shape).toEqual([1, nHeads, 1, nHeads]);
    expect(some.at(0, 1, 0, 2)).toBe(scores.at(0, 1, -1, 2));
  },
);

test("keys are what is asked for if nothing is said, and copying is of all heads", async () => {
  expect((await llm.compositionScores()).bytes).toEqual((await llm.compositionScores({ kind: "k" })).bytes);
  const { nLayers, nHeads } = await llm.modelInfo();
  const copying = await llm.copyingScores();
  expect(copying.shape).toEqual([nLayers, nHeads]);
  expect(copying.toFloat32().every((score) => Math.abs(score) <= 1)).toBe(true);
});

test("they are of the model that was run", async () => {
  const ran = llm.copy();
  await ran.run(["My lord"]);
  expect((await ran.headWeights(1, 0)).o.bytes).toEqual((await llm.headWeights(1, 0)).o.bytes);
});

test("what makes no sense is refused", async () => {
  await expect(llm.compositionScores({ kind: "x" as "q" })).rejects.toThrow('kind must be one of "q", "k", "v"');
  await expect(llm.headWeights(0, 99)).rejects.toMatchObject({ name: "IndexOutOfRangeError" });
  await expect(llm.headWeights(1.5, 0)).rejects.toMatchObject({ name: "IndexOutOfRangeError" });
  await expect(llm.copyingScores({ slices: { pos: { start: 1 } } })).rejects.toThrow('has no axis "pos"');
});

describe("of a server that lies", () => {
  const weights = (...widths: number[]) =>
    ["q", "k", "v", "o"].map((part, i) => {
      const width = widths[i] as number;
      const axes = part === "o" ? { d_head: width, d_model: 4 } : { d_model: 4, d_head: width };
      return chunkOf(`head_weights.${part}`, "F32", axes);
    });

  test("weights are as it described its model, and of one width", async () => {
    const honest = await startLiar({ ...DESCRIBED, headWeights: () => weights(2, 2, 2, 2) });
    expect((await honest.headWeights(0, 0)).q.shape).toEqual([4, 2]);
    const liar = await startLiar({ ...DESCRIBED, headWeights: () => weights(2, 2, 3, 2) });
    await expect(liar.headWeights(0, 0)).rejects.toThrow("weights of one head that are 2, 2, 3, 2 wide");
    const [q, ...others] = weights(2, 2, 2, 2);
    const short = await startLiar({ ...DESCRIBED, headWeights: () => [q, ...others.slice(0, 2)] as never });
    await expect(short.headWeights(0, 0)).rejects.toThrow("without its part o");
  });

  test.each([
    ["too many layers", { layer: 3, head: 2 }],
    ["too few heads", { layer: 2, head: 1 }],
  ])("copying scores of %s are none", async (_, axes) => {
    const liar = await startLiar({ ...DESCRIBED, copyingScores: () => [chunkOf("copying_scores", "F32", axes)] });
    await expect(liar.copyingScores()).rejects.toMatchObject({ name: "InternalError" });
  });

  test("an old one knows none", async () => {
    const old = await startLiar({ serverInfo: () => ({}) });
    await expect(old.copyingScores()).rejects.toMatchObject({ name: "NotSupportedError" });
  });
});
