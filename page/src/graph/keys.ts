/** Where the arrow keys lead from a node. */

import type { DrawnGraph } from "./drawn_graph.js";
import { type GraphNode, nodeName } from "./selection.js";

/** The next node; undefined if the key moves nowhere. Nodes of feed-forward parts are passed over where they are not shown. */
export function moved(key: string, from: GraphNode, { layout, active }: DrawnGraph): GraphNode | undefined {
  const column = (pos: number): GraphNode[] =>
    layout.nodesOf(pos).filter((node) => node.kind !== "M" || active.has(nodeName(node)));
  const here = column(from.pos);
  const at = here.findIndex((node) => nodeName(node) === nodeName(from));
  switch (key) {
    case "ArrowUp":
      return here[Math.min(here.length - 1, at + 1)];
    case "ArrowDown":
      return here[Math.max(0, at - 1)];
    case "ArrowLeft":
    case "ArrowRight": {
      const pos = Math.min(layout.nTokens - 1, Math.max(0, from.pos + (key === "ArrowLeft" ? -1 : 1)));
      const there = { ...from, pos };
      return column(pos).some((node) => nodeName(node) === nodeName(there)) ? there : { ...there, kind: "A" };
    }
    default:
      return undefined;
  }
}
