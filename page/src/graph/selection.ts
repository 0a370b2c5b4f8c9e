/** What of the graph is chosen: a node or an edge. */

/** X: a token's embedding; A: the stream after attention; M: the feed-forward part; I: the stream that leaves a layer. */
export type NodeKind = "X" | "A" | "M" | "I";

export interface GraphNode {
  readonly kind: NodeKind;
  /** Of X it is 0. */
  readonly layer: number;
  readonly pos: number;
}

/** An edge by its ends. */
export interface EdgeEnds {
  readonly source: GraphNode;
  readonly target: GraphNode;
}

export type Selection =
  | { readonly what: "node"; readonly node: GraphNode }
  | { readonly what: "edge"; readonly ends: EdgeEnds };

/** As the graph of the clients names it, such as A3_7. */
export function nodeName({ kind, layer, pos }: GraphNode): string {
  return `${kind}${layer}_${pos}`;
}

/** The node of a name. */
export function nodeOf(name: string): GraphNode {
  const [, kind, layer, pos] = /^([XAMI])(\d+)_(\d+)$/.exec(name) ?? [];
  return { kind: kind as NodeKind, layer: Number(layer), pos: Number(pos) };
}

/** Whether two selections are of the same place. */
export function isSame(a: Selection | undefined, b: Selection | undefined): boolean {
  return a !== undefined && b !== undefined && selectionName(a) === selectionName(b);
}

/** A short name that no other selection has. */
export function selectionName(selection: Selection): string {
  return selection.what === "node"
    ? nodeName(selection.node)
    : `${nodeName(selection.ends.source)}-${nodeName(selection.ends.target)}`;
}

/** A node in words. */
export function nodeWords(
  { kind, layer, pos }: GraphNode,
  tokens: readonly string[],
  shown: (token: string) => string,
): string {
  const at = `“${shown(tokens[pos] ?? "")}” (${pos})`;
  const places: Record<NodeKind, string> = {
    X: `embedding of ${at}`,
    A: `after attention of layer ${layer} at ${at}`,
    M: `feed-forward of layer ${layer} at ${at}`,
    I: `after layer ${layer} at ${at}`,
  };
  return places[kind];
}
