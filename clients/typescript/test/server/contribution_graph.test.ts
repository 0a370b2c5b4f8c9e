/** The contribution graph that is put together here is that of the server and that of the Python client. */

import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { ContributionGraph, type GraphEdge, LayerShares, MIN_THRESHOLD } from "../../src/index.js";
import { connect, type RemoteTransparentLlm } from "../../src/node.js";
import { PYTHON } from "../support/python.js";

/** The second is shorter, so that there is padding. */
const SENTENCES = ["My lord, I shall reply to your most noble majesty tomorrow", "Hello"];
const CASES = [MIN_THRESHOLD, 0.01, 0.04, 0.1].flatMap((threshold) =>
  [true, false].map((renormalize) => ({ threshold, renormalize })),
);
const NAMES = ["attention", "attentionResidual", "ffn", "ffnResidual"] as const;
const WITHIN = 1e-5;

let llm: RemoteTransparentLlm;
let layers: LayerShares[];
let nTokens: number;

beforeAll(async () => {
  llm = connect(inject("target"));
  await llm.run(SENTENCES);
  layers = await sharesOf(0);
  nTokens = (llm.last()[0] as number) + 1;
});

afterAll(() => llm.close());

async function sharesOf(row: number): Promise<LayerShares[]> {
  const { nLayers } = await llm.modelInfo();
  const count = (llm.last()[row] as number) + 1;
  const numbers = Array.from({ length: nLayers }, (_, layer) => layer);
  return Promise.all(
    numbers.map(async (layer) =>
      LayerShares.of(await llm.attnContributions(row, layer), await llm.contributionEdges(row, layer), count),
    ),
  );
}

function pythonEdges(): GraphEdge[][] {
  const script = fileURLToPath(new URL("contribution_graph.py", import.meta.url));
  const pairs = JSON.stringify(CASES.map(({ threshold, renormalize }) => [threshold, renormalize]));
  const printed = execFileSync(PYTHON, [script, inject("target"), JSON.stringify(SENTENCES), pairs], {
    encoding: "utf8",
    maxBuffer: 2 ** 26,
  });
  const found = JSON.parse(printed) as [string, string, number, GraphEdge["kind"], number, number, number][][];
  return found.map((edges) =>
    edges.map(([source, target, weight, kind, layer, sourcePos, targetPos]) => ({
      ...{ source, target, weight, kind, layer, sourcePos, targetPos },
    })),
  );
}

describe.each(CASES)("threshold $threshold, renormalize $renormalize", (parameters) => {
  test.each([0, 1])("weights of row %i are those of the server", async (row) => {
    const ofRow = row === 0 ? layers : await sharesOf(row);
    for (const [layer, shares] of ofRow.entries()) {
      const [ours, theirs] = [shares.edges(parameters), await llm.contributionEdges(row, layer, parameters)];
      const n = shares.nTokens;
      for (const name of NAMES) {
        expect(ours[name]).toHaveLength(name === "attention" ? n * n : n);
        ours[name].forEach((weight, i) => {
          const there = name === "attention" ? theirs[name].at(Math.floor(i / n), i % n) : theirs[name].at(i);
          expect(Math.abs(weight - there), `${name} ${i} of layer ${layer}`).toBeLessThan(WITHIN);
        });
      }
    }
  });
});

test("edges of paths to the last token are those of the Python client", () => {
  const counts = pythonEdges().map((theirs, i) => {
    const parameters = CASES[i] as (typeof CASES)[number];
    const edges = layers.map((layer) => layer.edges(parameters));
    const ours = new ContributionGraph(edges, nTokens, parameters).paths([nTokens - 1]).edges();
    const close = theirs.map((edge) => ({ ...edge, weight: expect.closeTo(edge.weight, 5) }));
    expect(ours).toEqual(close);
    return ours.length;
  });
  expect(counts).toHaveLength(CASES.length);
  expect(Math.min(...counts)).toBeGreaterThan(0);
  expect(new Set(counts).size).toBeGreaterThan(1);
});
