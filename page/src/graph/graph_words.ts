/** The graph in words: for tips under the pointer, and for screen readers. */

import { visible } from "../shown/token_text.js";
import type { DrawnGraph, Hit, PlacedEdge } from "./drawn_graph.js";
import { type EdgeEnds, nodeName, nodeOf, nodeWords } from "./selection.js";

/** What a point of the graph is, with its numbers. */
export function describe(hit: Hit, tokens: readonly string[], drawn: DrawnGraph): string {
  switch (hit.what) {
    case "start":
      return `Paths to the prediction at “${visible(tokens[hit.pos] ?? "")}” (${hit.pos})`;
    case "edge":
      return edgeWords(hit.ends, weightOf(hit.ends, drawn), tokens);
    case "node": {
      const entering = drawn.edgesAt(hit.node).filter(({ edge }) => edge.target === nodeName(hit.node));
      const [strongest] = entering;
      const rest =
        strongest === undefined
          ? "no edge enters it"
          : `${entering.length === 1 ? "1 edge enters it," : `${entering.length} edges enter it, the strongest`} ${strongest.edge.weight.toFixed(3)} from ${place(strongest, tokens)}`;
      return `${nodeWords(hit.node, tokens, visible)}: ${rest}`;
    }
  }
}

/** An edge in words. */
export function edgeWords(ends: EdgeEnds, weight: number | undefined, tokens: readonly string[]): string {
  const [from, to] = [nodeWords(ends.source, tokens, visible), nodeWords(ends.target, tokens, visible)];
  return `${weight === undefined ? "no edge any more" : weight.toFixed(4)}: ${from} → ${to}`;
}

/** The weight of an edge of the graph; undefined if it has none. */
export function weightOf({ source, target }: EdgeEnds, drawn: DrawnGraph): number | undefined {
  const [from, to] = [nodeName(source), nodeName(target)];
  return drawn.edges.find(({ edge }) => edge.source === from && edge.target === to)?.edge.weight;
}

function place({ edge }: PlacedEdge, tokens: readonly string[]): string {
  return nodeWords(nodeOf(edge.source), tokens, visible);
}
