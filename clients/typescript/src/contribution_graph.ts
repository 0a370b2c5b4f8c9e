/** The contribution graph of a row: what flowed from where to where, and which of it reaches a prediction. */

import { InvalidRequestError } from "./errors.js";
import { checkedThreshold, type GraphParameters, type LayerEdges } from "./layer_shares.js";
import { indexIn } from "./tensor.js";

/**
 * An edge. Nodes are named X0_3 (token 3 as it is embedded), A1_3 (the stream at position 3 after layer 1's attention),
 * M1_3 (what its feed-forward part reads and adds there) and I1_3 (the stream as it leaves layer 1).
 */
export interface GraphEdge {
  readonly source: string;
  readonly target: string;
  /** The contribution. */
  readonly weight: number;
  /**
   * "attention": from another position. "residual": from the same one, with what it attends to itself. "ffn": to and
   * from M. "ffn_residual": past it.
   */
  readonly kind: "residual" | "attention" | "ffn" | "ffn_residual";
  readonly layer: number;
  readonly sourcePos: number;
  readonly targetPos: number;
}

/**
 * Weights of all edges, and which of them count. With `renormalize`, what was not above the threshold is 0 already, and
 * all that is left counts. Without, edges count if they are above it.
 */
export class ContributionGraph implements GraphParameters {
  readonly nTokens: number;
  readonly threshold: number;
  readonly renormalize: boolean;
  readonly #layers: readonly LayerEdges[];
  /** Nodes that were asked for paths to: they are reached from themselves. */
  #starts: readonly string[] = [];

  /**
   * Of layers from the first on: all of a model, or those that have arrived.
   *
   * @param layers what `LayerShares.edges` gave for these parameters. Not copied.
   * @throws InvalidRequestError the threshold is no number from 0 to 1, or there are no tokens; INVALID_SHAPE: a layer is not of so many tokens.
   */
  constructor(layers: readonly LayerEdges[], nTokens: number, { threshold, renormalize }: GraphParameters) {
    checkedThreshold(threshold);
    requireCount(nTokens);
    layers.forEach((layer, i) => {
      requireTokens(layer, i, nTokens);
    });
    [this.nTokens, this.threshold, this.renormalize] = [nTokens, threshold, renormalize];
    this.#layers = [...layers];
  }

  /** How many layers are there. */
  get nLayers(): number {
    return this.#layers.length;
  }

  /** All that count, layer after layer. */
  edges(): GraphEdge[] {
    const found: GraphEdge[] = [];
    const positions = Array.from({ length: this.nTokens }, (_, pos) => pos);
    let entering = positions.map((pos) => `X0_${pos}`);
    this.#layers.forEach((edges, layer) => {
      const [afterAttn, ffn, leaving] = ["A", "M", "I"].map((kind) => positions.map((pos) => `${kind}${layer}_${pos}`));
      const names = { entering, afterAttn, ffn, leaving } as LayerNodes;
      this.#addAttention(found, edges, layer, names);
      this.#addFfn(found, edges, layer, names);
      entering = names.leaving;
    });
    return found;
  }

  /**
   * The same graph with those edges alone that lie on a path to the stream that leaves a layer at one of some
   * positions; others are 0.
   *
   * @param starts positions, negative ones from the end.
   * @param layer a negative one counts from the last that is there, which is the default.
   * @throws IndexOutOfRangeError no such position or layer.
   */
  paths(starts: readonly number[], layer = -1): ContributionGraph {
    const last = indexIn("layer", this.nLayers, layer);
    let leaving = new Uint8Array(this.nTokens);
    for (const start of starts) {
      leaving[indexIn("start", this.nTokens, start)] = 1;
    }
    const ends = Array.from(leaving.keys()).filter((pos) => leaving[pos] === 1);
    const layers = this.#layers.map((_, i) => (i > last ? noEdges(this.nTokens) : undefined));
    for (let i = last; i >= 0; i--) {
      [layers[i], leaving] = this.#reaching(leaving, this.#layers[i] as LayerEdges);
    }
    const found = new ContributionGraph(layers as LayerEdges[], this.nTokens, this);
    found.#starts = ends.map((pos) => `I${last}_${pos}`);
    return found;
  }

  /** Names of the nodes at the ends of edges that count; in a graph of paths: of those that are reached. */
  nodes(): Set<string> {
    const found = new Set(this.#starts);
    for (const { source, target } of this.edges()) {
      found.add(source).add(target);
    }
    return found;
  }

  /** What an edge is compared with. */
  get #least(): number {
    return this.renormalize ? 0 : checkedThreshold(this.threshold);
  }

  #addAttention(found: GraphEdge[], edges: LayerEdges, layer: number, names: LayerNodes): void {
    const [n, least, { attention }] = [this.nTokens, this.#least, edges];
    for (let targetPos = 0; targetPos < n; targetPos++) {
      const [target, own] = [names.afterAttn[targetPos] as string, ofItself(edges, targetPos, n)];
      for (let sourcePos = 0; sourcePos < n; sourcePos++) {
        const weight = sourcePos === targetPos ? own : (attention[targetPos * n + sourcePos] as number);
        if (weight > least) {
          const source = names.entering[sourcePos] as string;
          const kind = sourcePos === targetPos ? "residual" : "attention";
          found.push({ source, target, weight, kind, layer, sourcePos, targetPos });
        }
      }
    }
  }

  #addFfn(found: GraphEdge[], edges: LayerEdges, layer: number, names: LayerNodes): void {
    const add = (source: string[], target: string[], kind: GraphEdge["kind"], weight: number, pos: number): void => {
      const [from, to] = [source[pos] as string, target[pos] as string];
      found.push({ source: from, target: to, weight, kind, layer, sourcePos: pos, targetPos: pos });
    };
    const least = this.#least;
    edges.ffn.forEach((weight, pos) => {
      if (weight > least) {
        add(names.afterAttn, names.ffn, "ffn", weight, pos);
        add(names.ffn, names.leaving, "ffn", weight, pos);
      }
    });
    edges.ffnResidual.forEach((weight, pos) => {
      if (weight > least) {
        add(names.afterAttn, names.leaving, "ffn_residual", weight, pos);
      }
    });
  }

  /** Of one layer: the edges that reach where the stream leaves it, and where these enter. */
  #reaching(leaving: Uint8Array, edges: LayerEdges): [LayerEdges, Uint8Array<ArrayBuffer>] {
    const [n, least, { attention }] = [this.nTokens, this.#least, edges];
    const found = noEdges(n);
    const entering = new Uint8Array(n);
    for (let pos = 0; pos < n; pos++) {
      const [ffn, past] = [edges.ffn[pos] as number, edges.ffnResidual[pos] as number];
      if (leaving[pos] === 0 || !(ffn > least || past > least)) {
        continue;
      }
      found.ffn[pos] = ffn > least ? ffn : 0;
      found.ffnResidual[pos] = past > least ? past : 0;
      const own = ofItself(edges, pos, n);
      found.attentionResidual[pos] = own > least ? (edges.attentionResidual[pos] as number) : 0;
      for (let source = 0; source < n; source++) {
        const attended = attention[pos * n + source] as number;
        if ((source === pos ? own : attended) > least) {
          entering[source] = 1;
          found.attention[pos * n + source] = attended;
        }
      }
    }
    return [found, entering];
  }
}

/** Names of nodes by position. */
interface LayerNodes {
  readonly entering: string[];
  readonly afterAttn: string[];
  readonly ffn: string[];
  readonly leaving: string[];
}

/** The edge of a position to itself: of the stream that entered the layer, and of what the position attends to itself. */
function ofItself({ attention, attentionResidual }: LayerEdges, pos: number, n: number): number {
  return Math.fround((attention[pos * n + pos] as number) + (attentionResidual[pos] as number));
}

function noEdges(n: number): LayerEdges {
  const [attentionResidual, ffn, ffnResidual] = [new Float32Array(n), new Float32Array(n), new Float32Array(n)];
  return { attention: new Float32Array(n * n), attentionResidual, ffn, ffnResidual };
}

function requireCount(nTokens: number): void {
  if (!Number.isInteger(nTokens) || nTokens < 1) {
    throw new InvalidRequestError(`nTokens must be an integer of at least 1, got ${nTokens}`, {
      metadata: { argument: "nTokens" },
    });
  }
}

function requireTokens(layer: LayerEdges, i: number, n: number): void {
  const lengths = [layer.attention, layer.attentionResidual, layer.ffn, layer.ffnResidual].map(({ length }) => length);
  const expected = [n * n, n, n, n];
  if (lengths.some((length, part) => length !== expected[part])) {
    throw new InvalidRequestError(
      `layer ${i} has ${lengths.join(", ")} edges, and ${n} tokens take ${expected.join(", ")}`,
      { reason: "INVALID_SHAPE", metadata: { expected: expected.join(", "), got: lengths.join(", ") } },
    );
  }
}
