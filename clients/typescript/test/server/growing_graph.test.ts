/** Rows of the contribution graph of a text that grows, beside the whole graph. */

import { afterAll, beforeAll, expect, inject, test } from "vitest";
import {
  ContributionGraph,
  connect,
  type GraphEdge,
  type GraphRow,
  type GrowingGraphOptions,
  growingGraph,
  LayerShares,
  type RemoteTransparentLlm,
} from "../../src/node.js";

let llm: RemoteTransparentLlm;

beforeAll(() => {
  llm = connect(inject("target"), { timeoutMs: 30_000 });
});

afterAll(() => llm.close());

async function rowsOf(options: GrowingGraphOptions): Promise<GraphRow[]> {
  const rows: GraphRow[] = [];
  for await (const row of growingGraph(llm, "My lord, I shall", options)) {
    rows.push(row);
  }
  return rows;
}

/** In the order of their names, so that graphs are compared whatever their order. */
function sorted(edges: readonly GraphEdge[]): GraphEdge[] {
  return [...edges].sort((one, other) =>
    `${one.source} ${one.target}`.localeCompare(`${other.source} ${other.target}`),
  );
}

test.each([true, false])("rows are those of the whole graph, renormalized: %s", async (renormalize) => {
  const parameters = { threshold: 0.05, renormalize };
  const steps: number[] = [];
  const rows = await rowsOf({ ...parameters, maxNewTokens: 4, onStep: ([token]) => steps.push(token?.tokenId ?? -1) });
  const nTokens = llm.tokens().shape[1] as number;
  expect(rows.map(({ chosen }) => chosen.tokenId)).toEqual(steps);
  expect(rows.map(({ pos }) => pos)).toEqual([4, 3, 2, 1].map((left) => nTokens - left));
  const { nLayers } = await llm.modelInfo();
  const layers = [];
  for (let layer = 0; layer < nLayers; layer++) {
    const [shares, edges] = [await llm.attnContributions(0, layer), await llm.contributionEdges(0, layer)];
    layers.push(LayerShares.of(shares, edges, nTokens).edges(parameters));
  }
  const whole = new ContributionGraph(layers, nTokens, parameters).edges();
  for (const row of rows) {
    const wanted = whole.filter(({ targetPos }) => targetPos === row.pos);
    expect(sorted(row.edges())).toEqual(
      sorted(wanted).map((edge) => ({ ...edge, weight: expect.closeTo(edge.weight, 5) })),
    );
    expect(wanted.length).toBeGreaterThan(nLayers);
  }
  expect(rows.at(-1)?.tokens).toEqual((await llm.describeRun()).map(({ text }) => text));
});

test("a threshold that is none is refused before anything is sent", async () => {
  await expect(rowsOf({ threshold: 1.5 })).rejects.toThrow("threshold must be a number from 0 to 1");
});
