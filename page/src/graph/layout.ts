/** Where nodes of the graph stand: a column for each token, a band for each layer, the first at the bottom. */

import type { GraphNode } from "./selection.js";

export const COLUMN = 44;
export const BAND = 96;
/** Above the last layer: the triangles of the predictions. */
export const TOP = 40;
export const RADIUS = 6;
const SHIFT_OF_FFN = 15;

/** Of one run. Distances are in pixels before any zoom. */
export class Layout {
  readonly nTokens: number;
  readonly nLayers: number;
  readonly width: number;
  /** To the embeddings, below which the tokens are written. */
  readonly height: number;

  constructor(nTokens: number, nLayers: number) {
    this.nTokens = nTokens;
    this.nLayers = nLayers;
    this.width = nTokens * COLUMN;
    this.height = TOP + nLayers * BAND + 24;
  }

  /** The middle of a column. */
  column(pos: number): number {
    return (pos + 0.5) * COLUMN;
  }

  /** The upper border of a layer's band. */
  band(layer: number): number {
    return TOP + (this.nLayers - 1 - layer) * BAND;
  }

  place({ kind, layer, pos }: GraphNode): readonly [x: number, y: number] {
    const x = this.column(pos);
    switch (kind) {
      case "X":
        return [x, this.height - 12];
      case "A":
        return [x, this.band(layer) + 72];
      case "M":
        return [x + SHIFT_OF_FFN, this.band(layer) + 44];
      case "I":
        return [x, this.band(layer) + 16];
    }
  }

  /** Where the triangle of a prediction is. */
  start(pos: number): readonly [x: number, y: number] {
    return [this.column(pos), TOP - 18];
  }

  /** All nodes of a column from the bottom up. */
  nodesOf(pos: number): GraphNode[] {
    const nodes: GraphNode[] = [{ kind: "X", layer: 0, pos }];
    for (let layer = 0; layer < this.nLayers; layer++) {
      nodes.push({ kind: "A", layer, pos }, { kind: "M", layer, pos }, { kind: "I", layer, pos });
    }
    return nodes;
  }
}
