/** What is different between the contribution graphs of two runs. */

import type { GraphEdge } from "transparent-llm/web";
import { type EdgeEnds, nodeOf } from "../graph/selection.js";
import type { Alignment } from "./pair.js";

/** An edge of either graph. Positions of its ends are those of pairs, counted from the first pair. */
export interface Difference {
  readonly ends: EdgeEnds;
  /** 0: it has none. */
  readonly first: number;
  readonly second: number;
}

/** The second less the first. */
export function changeOf({ first, second }: Difference): number {
  return second - first;
}

/**
 * Edges that are not the same in both, those with the largest changes first.
 *
 * @returns them, and how many edges have an end at a position without a partner.
 */
export function differences(
  first: readonly GraphEdge[],
  second: readonly GraphEdge[],
  alignment: Alignment,
): { readonly differences: readonly Difference[]; readonly unpaired: number } {
  const found = new Map<string, Difference>();
  let unpaired = 0;
  ([first, second] as const).forEach((edges, i) => {
    const side = i as 0 | 1;
    for (const { source, target, weight } of edges) {
      const [from, to] = [alignment.aligned(source, side), alignment.aligned(target, side)];
      if (from === undefined || to === undefined) {
        unpaired++;
        continue;
      }
      const before = found.get(`${from}-${to}`) ?? {
        ends: { source: nodeOf(from), target: nodeOf(to) },
        first: 0,
        second: 0,
      };
      found.set(`${from}-${to}`, { ...before, [side === 0 ? "first" : "second"]: weight });
    }
  });
  const changed = [...found.values()].filter((each) => changeOf(each) !== 0);
  changed.sort((a, b) => Math.abs(changeOf(b)) - Math.abs(changeOf(a)));
  return { differences: changed, unpaired };
}
