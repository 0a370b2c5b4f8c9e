import { describe, expect, test } from "vitest";
import {
  ContributionGraph,
  type GraphEdge,
  type LayerEdges,
  LayerShares,
  MIN_THRESHOLD,
  Tensor,
} from "../../src/index.js";

const RENORMALIZED = { threshold: 0.1, renormalize: true };
const AS_THEY_ARE = { threshold: 0.1, renormalize: false };

/** Two tokens and one position of padding, two heads. */
function shares(nTokens = 2, padding = 0): LayerShares {
  // biome-ignore format: a row for each target
  const heads = [
    0.5, 0.05,  0, 0,        padding, 0,
    0.1, 0.2,   0.3, 0.006,  padding, 0,
    0, padding, 0, padding,  0, 0,
  ];
  // biome-ignore format: a row for each target
  const attention = [
    0.55, 0,     padding,
    0.3, 0.306,  padding,
    padding, padding, 0,
  ];
  const contributions = { heads: Tensor.ofFloats(heads, [3, 3, 2]), residual: Tensor.ofFloats([0.45, 0.394, padding]) };
  const edges = {
    attention: Tensor.ofFloats(attention, [3, 3]),
    attentionResidual: Tensor.ofFloats([0.45, 0.394, padding]),
    ffn: Tensor.ofFloats([0.09, 0.4, padding]),
    ffnResidual: Tensor.ofFloats([0.91, 0.6, padding]),
  };
  return LayerShares.of(contributions, edges, nTokens);
}

function layer(part: Partial<Record<keyof LayerEdges, number[]>>, n = 2): LayerEdges {
  const of = (values: number[] | undefined, length: number): Float32Array =>
    Float32Array.from(values ?? Array(length).fill(0));
  return {
    attention: of(part.attention, n * n),
    attentionResidual: of(part.attentionResidual, n),
    ffn: of(part.ffn, n),
    ffnResidual: of(part.ffnResidual, n),
  };
}

function ends(edges: readonly GraphEdge[]): string[] {
  return edges.map(({ source, target }) => `${source} ${target}`);
}

function requireClose(found: Float32Array, expected: readonly number[]): void {
  expect(found).toHaveLength(expected.length);
  expected.forEach((value, i) => {
    expect(found[i]).toBeCloseTo(value, 6);
  });
}

describe("shares of a layer", () => {
  test("are taken out and divided by what is left", () => {
    const edges = shares().edges(RENORMALIZED);
    const [first, second] = [0.5 + 0.45, 0.2 + 0.3 + 0.394]; // 0.1 is not larger than 0.1
    requireClose(edges.attention, [0.5 / first, 0, 0.2 / second, 0.3 / second]);
    requireClose(edges.attentionResidual, [0.45 / first, 0.394 / second]);
    requireClose(edges.ffn, [0, 0.4]);
    requireClose(edges.ffnResidual, [1, 0.6]);
  });

  test("stay as they are without that", () => {
    const edges = shares().edges({ threshold: 0.9, renormalize: false });
    requireClose(edges.attention, [0.55, 0, 0.3, 0.306]);
    requireClose(edges.attentionResidual, [0.45, 0.394]);
    requireClose(edges.ffn, [0.09, 0.4]);
    requireClose(edges.ffnResidual, [0.91, 0.6]);
  });

  test("of what comes after the tokens nothing is seen", () => {
    for (const parameters of [RENORMALIZED, AS_THEY_ARE]) {
      expect(shares(2, 0.7).edges(parameters)).toEqual(shares().edges(parameters));
    }
    requireClose(shares(1, 0.7).edges(RENORMALIZED).attention, [0.5 / 0.95]);
    expect(shares(3).edges(RENORMALIZED).ffn[2]).toBe(0);
  });

  test("of which none is left are 0", () => {
    const edges = shares().edges({ threshold: 1, renormalize: true });
    expect([...edges.attention, ...edges.attentionResidual, ...edges.ffn, ...edges.ffnResidual]).toEqual(
      Array(10).fill(0),
    );
  });

  test("that are no numbers leave no edge of their target", () => {
    const graph = new ContributionGraph([shares(3, Number.NaN).edges(RENORMALIZED)], 3, RENORMALIZED);
    expect(graph.edges().filter(({ target }) => target.startsWith("A"))).toEqual([]);
    expect(graph.nodes()).toEqual(new Set(["A0_0", "I0_0", "A0_1", "M0_1", "I0_1"]));
  });

  test("answers are the caller's own", () => {
    const kept = shares();
    kept.edges(AS_THEY_ARE).attention.fill(9);
    kept.edges(RENORMALIZED).ffn.fill(9);
    expect(kept.edges(AS_THEY_ARE)).toEqual(shares().edges(AS_THEY_ARE));
    expect(kept.edges(RENORMALIZED)).toEqual(shares().edges(RENORMALIZED));
  });

  test("the least threshold", () => {
    expect(shares().edges({ threshold: MIN_THRESHOLD, renormalize: true }).attention[3]).toBeCloseTo(0.306 / 1, 6);
    expect(() => shares().edges({ threshold: 0.004, renormalize: true })).toThrow(/threshold 0.004 .* above 0.005/);
    expect(shares().edges({ threshold: 0.004, renormalize: false }).attention[3]).toBeCloseTo(0.306, 6);
  });

  test.each([-0.1, 1.1, Number.NaN, "0.1"])("%o is no threshold", (threshold) => {
    const refused = expect.objectContaining({ name: "InvalidRequestError", metadata: { argument: "threshold" } });
    for (const renormalize of [true, false]) {
      expect(() => shares().edges({ threshold: threshold as number, renormalize })).toThrow(refused);
    }
    expect(() => new ContributionGraph([], 1, { threshold: threshold as number, renormalize: true })).toThrow(refused);
  });

  test.each([0, 4, 1.5, Number.NaN])("%o tokens are not in three positions", (nTokens) => {
    expect(() => shares(nTokens)).toThrow("nTokens must be an integer from 1 to 3, the positions, got");
  });

  test("of two runs", () => {
    const flat = (n: number): Tensor => Tensor.ofFloats(Array(n).fill(0));
    const contributions = { heads: Tensor.ofFloats(Array(8).fill(0), [2, 2, 2]), residual: flat(2) };
    const edges = {
      attention: Tensor.ofFloats([0], [1, 1]),
      attentionResidual: flat(1),
      ffn: flat(1),
      ffnResidual: flat(1),
    };
    expect(() => LayerShares.of(contributions, edges, 1)).toThrow("attention has the shape [1, 1], not [2, 2]");
  });
});

/** In layer 0 both tokens reach position 1; in layer 1 each position has itself alone, and M at position 1. */
const LAYERS = [
  layer({ attention: [0.2, 0, 0.3, 0.3], attentionResidual: [0.8, 0.4], ffn: [0.5, 0], ffnResidual: [0.5, 1] }),
  layer({ attentionResidual: [1, 1], ffn: [0, 0.4], ffnResidual: [1, 0.6] }),
];

describe("a graph", () => {
  test("its edges, layer after layer", () => {
    const edges = new ContributionGraph(LAYERS, 2, RENORMALIZED).edges();
    expect(ends(edges)).toEqual([
      ...["X0_0 A0_0", "X0_0 A0_1", "X0_1 A0_1", "A0_0 M0_0", "M0_0 I0_0", "A0_0 I0_0", "A0_1 I0_1"],
      ...["I0_0 A1_0", "I0_1 A1_1", "A1_1 M1_1", "M1_1 I1_1", "A1_0 I1_0", "A1_1 I1_1"],
    ]);
    expect(edges.slice(0, 4).map(({ kind }) => kind)).toEqual(["residual", "attention", "residual", "ffn"]);
    const [own, other, , ffn] = edges.map(({ weight }) => weight);
    [own, other, ffn].forEach((weight, i) => {
      expect(weight).toBeCloseTo([1, 0.3, 0.5][i] as number, 6);
    });
    expect(edges[1]).toMatchObject({ layer: 0, sourcePos: 0, targetPos: 1 });
    expect(edges.at(-1)).toMatchObject({ layer: 1, kind: "ffn_residual", sourcePos: 1, targetPos: 1 });
  });

  test("an edge as large as the threshold does not count, in single precision", () => {
    const tied = [layer({ attention: [0, 0, 0.1, 0], attentionResidual: [0.05, 0.11], ffn: [0.1, 0.2] })];
    expect(ends(new ContributionGraph(tied, 2, AS_THEY_ARE).edges())).toEqual(["X0_1 A0_1", "A0_1 M0_1", "M0_1 I0_1"]);
  });

  test("the residual and what a position attends to itself are one edge", () => {
    const two = [layer({ attention: [0.06, 0, 0, 0.04], attentionResidual: [0.06, 0.04] })];
    const [edge, ...others] = new ContributionGraph(two, 2, AS_THEY_ARE).edges();
    expect([edge?.weight, edge?.kind, others]).toEqual([expect.closeTo(0.12, 6), "residual", []]);
  });

  test("paths to the last position, and to the first", () => {
    const graph = new ContributionGraph(LAYERS, 2, RENORMALIZED);
    const last = ["X0_0 A0_1", "X0_1 A0_1", "A0_1 I0_1", "I0_1 A1_1", "A1_1 M1_1", "M1_1 I1_1", "A1_1 I1_1"];
    expect(ends(graph.paths([-1]).edges())).toEqual(last);
    const first = ["X0_0 A0_0", "A0_0 M0_0", "M0_0 I0_0", "A0_0 I0_0", "I0_0 A1_0", "A1_0 I1_0"];
    expect(ends(graph.paths([0]).edges())).toEqual(first);
    expect(graph.paths([0, 1]).edges()).toEqual(graph.edges());
    expect(graph.paths([]).edges()).toEqual([]);
    expect(ends(graph.paths([1], 0).edges())).toEqual(last.slice(0, 3));
    expect(graph.paths([1]).paths([1]).edges()).toEqual(graph.paths([1]).edges());
  });

  test("nothing passes an M whose stream does not count", () => {
    const blocked = [layer({ attentionResidual: [1, 1], ffn: [0.05, 0], ffnResidual: [0.05, 1] })];
    const graph = new ContributionGraph(blocked, 2, AS_THEY_ARE);
    expect(graph.paths([0]).edges()).toEqual([]);
    expect(graph.paths([0]).nodes()).toEqual(new Set(["I0_0"]));
    expect(graph.paths([1]).nodes()).toEqual(new Set(["I0_1", "A0_1", "X0_1"]));
    expect(graph.nodes()).toEqual(new Set(["X0_0", "A0_0", "X0_1", "A0_1", "I0_1"]));
  });

  test("of the layers that have arrived", () => {
    const graph = new ContributionGraph(LAYERS.slice(0, 1), 2, RENORMALIZED);
    expect(graph.nLayers).toBe(1);
    expect(ends(graph.paths([1]).edges())).toEqual(["X0_0 A0_1", "X0_1 A0_1", "A0_1 I0_1"]);
    const empty = new ContributionGraph([], 2, RENORMALIZED);
    expect([empty.edges(), empty.nodes()]).toEqual([[], new Set()]);
    expect(() => empty.paths([0])).toThrow("layer -1 is out of range: there are none");
  });

  test.each([
    [[2], -1, "start 2 is out of range: valid indices are -2 to 1"],
    [[-3], -1, "start -3 is out of range"],
    [[0.5], -1, "start 0.5 is out of range"],
    [[0], 2, "layer 2 is out of range: valid indices are -2 to 1"],
  ] as const)("no paths to %o of layer %i", (starts, at, message) => {
    const graph = new ContributionGraph(LAYERS, 2, RENORMALIZED);
    expect(() => graph.paths(starts, at)).toThrow(
      expect.objectContaining({ name: "IndexOutOfRangeError", message: expect.stringContaining(message) }),
    );
  });

  test("of layers of other tokens", () => {
    expect(() => new ContributionGraph(LAYERS, 3, RENORMALIZED)).toThrow(
      "layer 0 has 4, 2, 2, 2 edges, and 3 tokens take 9, 3, 3, 3",
    );
    expect(() => new ContributionGraph([], 0, RENORMALIZED)).toThrow("nTokens must be an integer of at least 1, got 0");
  });
});
