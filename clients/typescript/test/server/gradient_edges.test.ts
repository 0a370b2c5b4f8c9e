/** Edges between parts of a model, with the real server, beside Python, and of servers that lie. */

import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { EVERYWHERE, head, logit, projection, residualIn, residualOut, zero } from "../../src/interventions.js";
import { connect, type EdgeScores, type GradientsPlan, type RemoteTransparentLlm, topEdges } from "../../src/node.js";
import { type Chunk, chunkOf, DESCRIBED, startLiar } from "../support/liar.js";
import { PYTHON } from "../support/python.js";

const [BASE, SOURCE] = ["My lord, I shall reply", "My king, I shall reply"];
const METRIC = logit(5, { pos: -1 });

let llm: RemoteTransparentLlm;
let source: RemoteTransparentLlm;

beforeAll(async () => {
  llm = connect(inject("target"), { timeoutMs: 30_000 });
  source = llm.copy();
  await llm.run([BASE]);
  await source.run([SOURCE]);
});

afterAll(() => llm.close());

test.each([0, 3])("the largest edges are those that Python finds, with %i steps", async (steps) => {
  const script = fileURLToPath(new URL("gradient_edges.py", import.meta.url));
  const args = [script, inject("target"), BASE, SOURCE, "5", String(steps), "25"];
  const wanted = JSON.parse(execFileSync(PYTHON, args, { encoding: "utf8" }));
  const { edges } = await llm.gradients({ metric: METRIC, edges: { source, steps } });
  const found = topEdges(edges as EdgeScores, 25).map(({ sender, receiver, score }) => [sender, receiver, score]);
  expect(found).toEqual(wanted);
});

test("a run that was lost is run again, also the other", async () => {
  const { edges } = await llm.gradients({ metric: METRIC, edges: { source, sourceRows: [0] } });
  await Promise.all([llm.release(), source.release()]);
  const again = await llm.gradients({ metric: METRIC, edges: { source, sourceRows: [0] } });
  expect(again.edges?.ffn.bytes).toEqual(edges?.ffn.bytes);
});

test.each<[object, string]>([
  [{ edges: null }, "edges are of another run"],
  [{ edges: {} }, "the source of gradients is a client"],
  [{ edges: { steps: 1001 } }, "steps 1001 is out of range"],
  [{ edges: { sourceRows: [0.5] } }, "sourceRows must be an integer"],
  [{ edges: {}, edits: [zero(head(0, 0), EVERYWHERE)] }, "of a run without edits"],
  [{ edges: {}, metric: projection(residualOut(1), new Float32Array(128).fill(1), { pos: -1 }) }, "a metric of logits"],
  [{ edges: {}, sites: [residualIn(0)] }, "give one of them"],
])("what makes no sense is refused before anything is sent (%#)", async (plan, words) => {
  await expect(llm.gradients({ metric: METRIC, ...plan } as GradientsPlan)).rejects.toThrow(words);
});

test("there is a first edge, and no edges of other rows", async () => {
  const { edges } = await llm.gradients({ metric: METRIC, edges: { source } });
  expect(() => topEdges(edges as EdgeScores, 0)).toThrow("k 0 is out of range");
  expect(() => topEdges(edges as EdgeScores, 1, 1)).toThrow("row 1 is out of range");
});

describe("of a server that lies", () => {
  const axes = { batch: 2, sender: 7, layer: 2 };
  const scores = (): Chunk[] => [
    chunkOf("metric", "F64", { batch: 2 }),
    chunkOf("query", "F32", { ...axes, head: 2 }),
    chunkOf("key", "F32", { ...axes, kv_head: 1 }),
    chunkOf("value", "F32", { ...axes, kv_head: 1 }),
    chunkOf("ffn", "F32", axes),
    chunkOf("logits", "F32", { batch: 2, sender: 7 }),
  ];

  async function asked(answer: readonly object[]): Promise<EdgeScores | undefined> {
    const lying = await startLiar({ ...DESCRIBED, gradients: () => answer });
    await lying.run(["one", "two"]);
    return (await lying.gradients({ metric: METRIC, edges: { source: lying } })).edges;
  }

  test("what was asked for is taken", async () => {
    expect((await asked(scores()))?.key.shape).toEqual([2, 7, 2, 1]);
  });

  test.each<[string, (honest: Chunk[]) => Chunk[]]>([
    ["one less", (honest) => honest.slice(0, -1)],
    ["another order", ([metric, query, ...rest]) => [query, metric, ...rest] as Chunk[]],
    ["a sender more", (honest) => [...honest.slice(0, -1), chunkOf("logits", "F32", { batch: 2, sender: 8 })]],
    [
      "a layer less",
      (honest) => [...honest.slice(0, 4), chunkOf("ffn", "F32", { ...axes, layer: 1 }), ...honest.slice(5)],
    ],
  ])("%s is refused", async (_, lie) => {
    await expect(asked(lie(scores()))).rejects.toMatchObject({ name: "InternalError" });
  });
});
