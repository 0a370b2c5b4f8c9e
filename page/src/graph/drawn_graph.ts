/** What is drawn of a graph, and what of it is under a point. */

import type { ContributionGraph, GraphEdge } from "transparent-llm/web";
import { COLUMN, Layout, RADIUS, TOP } from "./layout.js";
import { type GraphNode, nodeName, nodeOf, type Selection } from "./selection.js";

const NEAR_NODE = RADIUS + 4;
const NEAR_EDGE = 5;

type Ends = Pick<GraphEdge, "source" | "target">;

/** A line with its places. */
export interface Line {
  readonly x1: number;
  readonly y1: number;
  readonly x2: number;
  readonly y2: number;
}

/** An edge with its places. */
export interface PlacedEdge extends Line {
  readonly edge: GraphEdge;
}

/** What a point can be on. */
export type Hit = { readonly what: "start"; readonly pos: number } | Selection;

/** A graph with places. Made once for each setting of the controls; drawing only reads it. */
export class DrawnGraph {
  readonly layout: Layout;
  readonly edges: readonly PlacedEdge[];
  /** Where paths go past layers that show none: nothing that was measured. */
  readonly passages: readonly Line[];
  /** Names of the nodes that a path goes through. */
  readonly active: ReadonlySet<string>;
  readonly #byBand: readonly (readonly PlacedEdge[])[];

  /** @param gaps layers that show no paths. */
  constructor(
    graph: ContributionGraph | undefined,
    nTokens: number,
    nLayers: number,
    gaps: ReadonlyMap<number, unknown> = new Map(),
  ) {
    this.layout = new Layout(nTokens, nLayers);
    const all = graph?.edges() ?? [];
    this.edges = all.filter(({ layer }) => !gaps.has(layer)).map((edge) => ({ edge, ...this.#line(edge) }));
    const past = all.filter(({ layer, kind }) => gaps.has(layer) && kind === "residual").map(pastGap);
    this.passages = past.map((ends) => this.#line(ends));
    const ends = [...this.edges.map(({ edge }) => edge), ...past];
    this.active = new Set(ends.flatMap(({ source, target }) => [source, target]));
    this.#byBand = Array.from({ length: nLayers }, (_, layer) => this.edges.filter(({ edge }) => edge.layer === layer));
  }

  /** The edges of some layers. */
  edgesBetween(fromLayer: number, toLayer: number): PlacedEdge[] {
    return this.#byBand.slice(Math.max(0, fromLayer), toLayer + 1).flat();
  }

  /** The strongest edges that enter or leave a node come first. */
  edgesAt(node: GraphNode): PlacedEdge[] {
    const name = nodeName(node);
    return this.edges
      .filter(({ edge }) => edge.source === name || edge.target === name)
      .sort((a, b) => b.edge.weight - a.edge.weight);
  }

  /** The nearest of what can be clicked; `scale` is the zoom, as near is meant on the screen. */
  at(x: number, y: number, scale: number): Hit | undefined {
    const pos = Math.floor(x / COLUMN);
    if (pos < 0 || pos >= this.layout.nTokens) {
      return undefined;
    }
    if (y < TOP - 4) {
      return { what: "start", pos };
    }
    const node = this.#nodeAt(pos, x, y, NEAR_NODE / Math.min(1, scale));
    if (node !== undefined) {
      return { what: "node", node };
    }
    const edge = this.#edgeAt(x, y, NEAR_EDGE / scale);
    return edge && { what: "edge", ends: { source: nodeOf(edge.edge.source), target: nodeOf(edge.edge.target) } };
  }

  #nodeAt(pos: number, x: number, y: number, near: number): GraphNode | undefined {
    return nearest(this.layout.nodesOf(pos), near, (node) => {
      const [nodeX, nodeY] = this.layout.place(node);
      const isHidden = node.kind === "M" && !this.active.has(nodeName(node));
      return isHidden ? Number.POSITIVE_INFINITY : Math.hypot(x - nodeX, y - nodeY);
    });
  }

  #edgeAt(x: number, y: number, near: number): PlacedEdge | undefined {
    return nearest(this.edges, near, (edge) => distance(edge, x, y));
  }

  #line({ source, target }: Ends): Line {
    const [x1, y1] = this.layout.place(nodeOf(source));
    const [x2, y2] = this.layout.place(nodeOf(target));
    return { x1, y1, x2, y2 };
  }
}

/** From where the stream enters a layer to where it leaves it. */
function pastGap({ source, layer, targetPos }: GraphEdge): Ends {
  return { source, target: `I${layer}_${targetPos}` };
}

function nearest<T>(all: Iterable<T>, within: number, far: (each: T) => number): T | undefined {
  let [found, least]: [T | undefined, number] = [undefined, within];
  for (const each of all) {
    const distance = far(each);
    if (distance < least) {
      [found, least] = [each, distance];
    }
  }
  return found;
}

/** From a point to the line between two. */
function distance({ x1, y1, x2, y2 }: PlacedEdge, x: number, y: number): number {
  const [dx, dy] = [x2 - x1, y2 - y1];
  const along = Math.min(1, Math.max(0, ((x - x1) * dx + (y - y1) * dy) / (dx * dx + dy * dy)));
  return Math.hypot(x - x1 - along * dx, y - y1 - along * dy);
}
