import { describe, expect, test } from "vitest";
import { ablations, patchOf } from "../../src/compare/choices.js";
import { editWords } from "../../src/compare/edit_words.js";
import { changeOf, differences } from "../../src/compare/graph_difference.js";
import { Alignment, changeWords, Pair } from "../../src/compare/pair.js";
import type { GraphNode } from "../../src/graph/selection.js";
import type { RunView } from "../../src/run/run_view.js";

const word = (id: number): string => `<${id}>`;

/** As much of a run as a pair looks at. */
function run(...tokens: string[]): RunView {
  return { tokens, nTokens: tokens.length, edits: [] } as unknown as RunView;
}

function edge(source: string, target: string, weight: number) {
  return { source, target, weight, kind: "attention" as const, layer: 0, sourcePos: 0, targetPos: 0 };
}

describe("rows of different lengths", () => {
  test("are laid on each other by their last tokens", () => {
    const alignment = new Alignment(5, 3, "last");
    expect([0, 1, 2, 3, 4].map((pos) => alignment.secondOf(pos))).toEqual([undefined, undefined, 0, 1, 2]);
  });

  test("or by their first ones", () => {
    const alignment = new Alignment(2, 4, "first");
    expect([0, 1, 2].map((pos) => alignment.secondOf(pos))).toEqual([0, 1, undefined]);
  });

  test("a pair of two tokens has both in its label", () => {
    expect(new Pair(run("a", " b", "c"), run("b", "c"), "last").labels).toEqual(["·b|b", "c"]);
  });
});

describe("graphs", () => {
  test("the largest change is first, whatever its sign; what is the same is left out", () => {
    const before = [edge("X0_0", "A0_1", 0.5), edge("X0_1", "A0_1", 0.3), edge("A0_1", "I0_1", 0.2)];
    const after = [edge("X0_0", "A0_1", 0.1), edge("A0_1", "I0_1", 0.2), edge("A0_1", "M0_1", 0.6)];
    const { differences: found, unpaired } = differences(before, after, new Alignment(2, 2, "last"));
    expect(unpaired).toBe(0);
    expect(found.map((each) => [each.ends.target.kind, each.first, each.second])).toEqual([
      ["M", 0, 0.6],
      ["A", 0.5, 0.1],
      ["A", 0.3, 0],
    ]);
    expect(found.map(changeOf)).toEqual([0.6, -0.4, -0.3]);
  });

  test("edges are shifted to their partners, and those without one are counted", () => {
    const before = [edge("X0_0", "A0_2", 0.5), edge("X0_1", "A0_2", 0.25)];
    const { differences: found, unpaired } = differences(
      before,
      [edge("X0_0", "A0_1", 0.5)],
      new Alignment(3, 2, "last"),
    );
    expect(unpaired).toBe(1);
    expect(found).toEqual([
      {
        ends: { source: { kind: "X", layer: 0, pos: 0 }, target: { kind: "A", layer: 0, pos: 1 } },
        first: 0.25,
        second: 0.5,
      },
    ]);
  });
});

describe("edits for what is chosen", () => {
  const node = (kind: GraphNode["kind"]): { selection: { what: "node"; node: GraphNode } } => ({
    selection: { what: "node", node: { kind, layer: 1, pos: 2 } },
  });

  test("a head is ablated at all tokens or here", () => {
    const specs = ablations({ ...node("A"), head: 3 }).map(({ spec }) => spec);
    const site = { kind: "head", layer: 1, head: 3 };
    expect(specs).toEqual([
      { op: "scale", factor: 0, site, positions: "all" },
      { op: "scale", factor: 0, site, positions: [2] },
    ]);
  });

  test("a neuron, and what an edge brings", () => {
    expect(ablations({ ...node("M"), neuron: 9 })[0]?.spec.site).toEqual({ kind: "neurons", layer: 1, neurons: [9] });
    const ends = { source: { kind: "I", layer: 0, pos: 0 }, target: { kind: "A", layer: 1, pos: 2 } } as const;
    expect(ablations({ selection: { what: "edge", ends } })[0]?.spec.site).toEqual({ kind: "attn_out", layer: 1 });
  });

  test("the stream itself is not ablated", () => {
    expect(ablations(node("I"))).toEqual([]);
  });

  test("a patch comes from the partner of the position", () => {
    const site = { kind: "residual_out", layer: 1 };
    const [three, two] = [run("a", "b", "c"), run("b", "c")];
    expect(patchOf(node("I"), new Pair(three, three, "last"))).toEqual({ op: "patch", site, positions: [2] });
    expect(patchOf(node("I"), new Pair(three, two, "last"))).toEqual({
      ...{ op: "patch", site, positions: [2] },
      sourcePositions: [1],
    });
    expect(patchOf(node("I"), new Pair(three, two, "first"))).toBeUndefined();
  });
});

test("edits are told in words", () => {
  const at = { site: { kind: "head", layer: 1, head: 2 }, positions: "all" } as const;
  expect(editWords({ ...at, op: "scale", factor: 0 }, word)).toBe("Ablate head 2 of layer 1 at all tokens");
  expect(editWords({ ...at, op: "scale", factor: 0.5 }, word)).toBe("Scale head 2 of layer 1 at all tokens by 0.5");
  expect(editWords({ ...at, positions: [3], op: "patch", sourcePositions: [4] }, word)).toBe(
    "Patch head 2 of layer 1 at 3 from the other sentence at 4",
  );
  expect(
    editWords({ site: { kind: "residual_in", layer: 0 }, positions: "last", op: "steer", token: 7, factor: 2 }, word),
  ).toBe("Steer the stream into layer 0 at the last token toward <7>, 2 times its norm");
});

test("a change says its sign", () => {
  expect([0.25, -0.25, 0.000001].map((change) => changeWords(change))).toEqual(["▲ +0.2500", "▼ −0.2500", "= 0.0000"]);
});
