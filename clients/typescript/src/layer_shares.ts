/** What one layer contributed to each token of a row: its edges of the contribution graph, for whichever threshold. */

import type { AttnContributions, ContributionEdges } from "./analyses.js";
import { InvalidRequestError } from "./errors.js";
import type { Tensor } from "./tensor.js";

/** The least threshold that shares can be renormalized above: smaller shares of single heads are not kept. */
export const MIN_THRESHOLD = 0.005;

/** What counts in a contribution graph. */
export interface GraphParameters {
  /** A contribution counts if it is larger; from 0 to 1. */
  readonly threshold: number;
  /**
   * Whether contributions that do not count, of each source through each head, are taken out before heads are summed,
   * and the others divided by their sum. False: nothing is taken out, and an edge counts if it is above the threshold.
   * The two give different graphs.
   */
  readonly renormalize: boolean;
}

/** Weights of the edges of one layer, of a row without padding. */
export interface LayerEdges {
  /** Of each source to each target, over all heads. [target source], in C order. */
  readonly attention: Float32Array;
  /** Of the stream that entered the layer to the stream after attention. [target] */
  readonly attentionResidual: Float32Array;
  /** Of the feed-forward part to the stream that leaves the layer. [pos] */
  readonly ffn: Float32Array;
  /** Of the stream after attention to the stream that leaves the layer. [pos] */
  readonly ffnResidual: Float32Array;
}

/** Shares of single heads above `MIN_THRESHOLD`, target after target. */
interface HeadShares {
  /** Where those of each target begin, and where the last one's end. [target + 1] */
  readonly starts: Uint32Array;
  /** Which source each is of. */
  readonly sources: Uint32Array;
  readonly weights: Float32Array;
}

/** The shares of one layer, kept small: a slider over thresholds asks no server. */
export class LayerShares {
  /** Tokens of the row, without padding. */
  readonly nTokens: number;
  readonly #heads: HeadShares;
  /** Of `attnContributions`: not divided by what is left. */
  readonly #residual: Float32Array;
  readonly #summed: LayerEdges;

  private constructor(nTokens: number, heads: HeadShares, residual: Float32Array, summed: LayerEdges) {
    this.nTokens = nTokens;
    this.#heads = heads;
    this.#residual = residual;
    this.#summed = summed;
  }

  /**
   * Of what the server says of one layer.
   *
   * @param contributions what `attnContributions` gave.
   * @param edges what `contributionEdges` gave with its defaults, threshold 0 and no renormalization, and the same norm.
   * @param nTokens tokens of the row; what comes after them is padding and left out.
   * @throws InvalidRequestError INVALID_SHAPE: the two are not of one layer of one row, or have fewer positions.
   */
  static of(contributions: AttnContributions, edges: ContributionEdges, nTokens: number): LayerShares {
    const [nPos] = contributions.residual.shape as [number];
    const [, , nHeads = 0] = contributions.heads.shape;
    requireShape("heads", contributions.heads, [nPos, nPos, nHeads]);
    requireShape("residual", contributions.residual, [nPos]);
    requireShape("attention", edges.attention, [nPos, nPos]);
    for (const name of ["attentionResidual", "ffn", "ffnResidual"] as const) {
      requireShape(name, edges[name], [nPos]);
    }
    if (!Number.isInteger(nTokens) || nTokens < 1 || nTokens > nPos) {
      throw new InvalidRequestError(`nTokens must be an integer from 1 to ${nPos}, the positions, got ${nTokens}`, {
        metadata: { argument: "nTokens" },
      });
    }
    const cut = (tensor: Tensor): Float32Array => tensor.toFloat32().slice(0, nTokens);
    return new LayerShares(nTokens, headShares(contributions.heads, nTokens), cut(contributions.residual), {
      attention: square(edges.attention, nTokens),
      attentionResidual: cut(edges.attentionResidual),
      ffn: cut(edges.ffn),
      ffnResidual: cut(edges.ffnResidual),
    });
  }

  /**
   * The edges, as the server's `contributionEdges` gives them for these parameters.
   *
   * @throws InvalidRequestError a threshold that is no number from 0 to 1, or one below `MIN_THRESHOLD` with
   *   `renormalize`.
   */
  edges({ threshold, renormalize }: GraphParameters): LayerEdges {
    const least = checkedThreshold(threshold);
    if (!renormalize) {
      const { attention, attentionResidual, ffn, ffnResidual } = this.#summed;
      return {
        attention: attention.slice(),
        attentionResidual: attentionResidual.slice(),
        ffn: ffn.slice(),
        ffnResidual: ffnResidual.slice(),
      };
    }
    if (threshold < MIN_THRESHOLD) {
      throw new InvalidRequestError(
        `threshold ${threshold} is too small to renormalize with: shares of heads are kept above ${MIN_THRESHOLD}; ` +
          "take a larger one, or ask contributionEdges",
        { metadata: { argument: "threshold", least: String(MIN_THRESHOLD), got: String(threshold) } },
      );
    }
    return { ...this.#attention(least), ...this.#ffn(least) };
  }

  #attention(least: number): Pick<LayerEdges, "attention" | "attentionResidual"> {
    const { starts, sources, weights } = this.#heads;
    const n = this.nTokens;
    const attention = new Float32Array(n * n);
    const attentionResidual = new Float32Array(n);
    for (let target = 0; target < n; target++) {
      const row = target * n;
      const residual = kept(this.#residual[target] as number, least);
      let total = residual;
      for (let i = starts[target] as number; i < (starts[target + 1] as number); i++) {
        const at = row + (sources[i] as number);
        const share = kept(weights[i] as number, least);
        attention[at] = (attention[at] as number) + share;
        total += share;
      }
      const divisor = total === 0 ? 1 : total;
      attentionResidual[target] = residual / divisor;
      for (let at = row; at < row + n; at++) {
        attention[at] = (attention[at] as number) / divisor;
      }
    }
    return { attention, attentionResidual };
  }

  #ffn(least: number): Pick<LayerEdges, "ffn" | "ffnResidual"> {
    const ffn = this.#summed.ffn.map((share) => kept(share, least));
    const ffnResidual = this.#summed.ffnResidual.map((share) => kept(share, least));
    for (let pos = 0; pos < this.nTokens; pos++) {
      const [added, past] = [ffn[pos] as number, ffnResidual[pos] as number];
      const divisor = added + past === 0 ? 1 : added + past;
      ffn[pos] = added / divisor;
      ffnResidual[pos] = past / divisor;
    }
    return { ffn, ffnResidual };
  }
}

/**
 * The threshold, in the precision of what is compared with it.
 *
 * @throws InvalidRequestError it is no number from 0 to 1.
 */
export function checkedThreshold(threshold: number): number {
  if (typeof threshold !== "number" || !(threshold >= 0 && threshold <= 1)) {
    throw new InvalidRequestError(`threshold must be a number from 0 to 1, got ${String(threshold)}`, {
      metadata: { argument: "threshold" },
    });
  }
  return Math.fround(threshold);
}

/** What is no number stays, as on the server: it must not look like a share. */
function kept(share: number, least: number): number {
  return share <= least ? 0 : share;
}

function headShares(heads: Tensor, nTokens: number): HeadShares {
  const [nPos, , nHeads] = heads.shape as [number, number, number];
  const all = heads.toFloat32();
  const least = Math.fround(MIN_THRESHOLD);
  const starts = new Uint32Array(nTokens + 1);
  const sources: number[] = [];
  const weights: number[] = [];
  for (let target = 0; target < nTokens; target++) {
    const row = target * nPos * nHeads;
    for (let i = 0; i < nTokens * nHeads; i++) {
      const share = all[row + i] as number;
      if (!(share <= least)) {
        sources.push(Math.floor(i / nHeads));
        weights.push(share);
      }
    }
    starts[target + 1] = sources.length;
  }
  return { starts, sources: Uint32Array.from(sources), weights: Float32Array.from(weights) };
}

function square(tensor: Tensor, nTokens: number): Float32Array {
  const [nPos] = tensor.shape as [number];
  const all = tensor.toFloat32();
  const found = new Float32Array(nTokens * nTokens);
  for (let target = 0; target < nTokens; target++) {
    found.set(all.subarray(target * nPos, target * nPos + nTokens), target * nTokens);
  }
  return found;
}

function requireShape(name: string, { shape }: Tensor, expected: readonly (number | undefined)[]): void {
  if (shape.length !== expected.length || shape.some((size, axis) => size !== expected[axis])) {
    const [wanted, got] = [`[${expected.join(", ")}]`, `[${shape.join(", ")}]`];
    throw new InvalidRequestError(
      `${name} has the shape ${got}, not ${wanted}: shares are of all positions of one row, both of the same run`,
      { reason: "INVALID_SHAPE", metadata: { argument: name, expected: wanted, got } },
    );
  }
}
