/** Where the nodes of the graph are in the residual stream, and what the stream was before them. */

import { NotSupportedError, type ResidualPoint } from "transparent-llm/web";
import type { GraphNode, NodeKind } from "../graph/selection.js";

/** A place of the residual stream. */
export interface StreamPlace {
  readonly layer: number;
  readonly point: ResidualPoint;
}

const POINTS: Readonly<Record<NodeKind, ResidualPoint>> = { X: "in", A: "after_attn", M: "after_attn", I: "out" };

/** What is before each, the place that is wanted first; those that follow are for models that lack it. */
const BEFORE: Readonly<Record<NodeKind, readonly ResidualPoint[]>> = {
  X: [],
  A: ["in"],
  M: ["in"],
  I: ["after_attn", "in"],
};

/** The place of a node. Of a feed-forward part: of what it reads. */
export function placeOf({ kind, layer }: GraphNode): StreamPlace {
  return { layer, point: POINTS[kind] };
}

/** Whether the stream was anything before. */
export function hasBefore({ kind }: GraphNode): boolean {
  return BEFORE[kind].length > 0;
}

/**
 * Read something of the place before a node. Blocks that compute attention and feed-forward part at once may have no
 * stream in between: then it is the stream that enters the layer.
 *
 * @returns undefined for an embedding, which has none before.
 */
export async function readBefore<T>(
  { kind, layer }: GraphNode,
  read: (before: StreamPlace) => Promise<T>,
): Promise<T | undefined> {
  const [first, second] = BEFORE[kind];
  if (first === undefined) {
    return undefined;
  }
  try {
    return await read({ layer, point: first });
  } catch (error) {
    if (second === undefined || !(error instanceof NotSupportedError)) {
      throw error;
    }
    return read({ layer, point: second });
  }
}

/** What of a layer lies between a node and the place before. */
export function partBetween({ kind, layer }: GraphNode, { point }: StreamPlace): string {
  const parts = kind === "A" ? "attention" : point === "in" ? "attention and feed-forward" : "feed-forward";
  return `L${layer} › ${parts}`;
}
