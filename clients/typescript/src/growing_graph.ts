/** A contribution graph that grows by a row with each new token: what flowed to the position that chose it. */

import type { ContributionNorm } from "./analyses.js";
import type { RemoteTransparentLlm } from "./client.js";
import type { GraphEdge } from "./contribution_graph.js";
import type { GenerateOptions, GenerationStep, NextToken } from "./generation.js";
import { checkedThreshold, type GraphParameters } from "./layer_shares.js";
import type { CallOptions } from "./options.js";
import type { Tensor } from "./tensor.js";

/** Rows that are asked for together. */
const AT_ONCE = 256;

/** How a text goes on, and which edges of its graph count. */
export interface GrowingGraphOptions extends GenerateOptions, Partial<GraphParameters> {
  /** Default: "l1". */
  readonly norm?: ContributionNorm | undefined;
}

/** Shares of all layers that lead to one position. */
interface RowShares {
  /** Of each layer, from each position up to this one to the stream after attention, over all heads. */
  readonly attention: readonly Float32Array[];
  /** Of the stream that entered each layer. */
  readonly attentionResidual: Float32Array;
  /** Of the feed-forward part of each layer; both edges of M have it. */
  readonly ffn: Float32Array;
  /** Of each layer, from the stream after attention, past the feed-forward part. */
  readonly ffnResidual: Float32Array;
}

/** All edges of a contribution graph into the nodes of one position; of a causal model no later token adds one. */
export class GraphRow implements GraphParameters {
  /** The new token, which was chosen at this position. */
  readonly chosen: NextToken;
  /** The text of each position up to this one, which is the last. */
  readonly tokens: readonly string[];
  readonly shares: RowShares;
  readonly threshold: number;
  readonly renormalize: boolean;

  /** @internal */
  constructor(
    chosen: NextToken,
    tokens: readonly string[],
    shares: RowShares,
    { threshold, renormalize }: GraphParameters,
  ) {
    [this.chosen, this.tokens, this.shares] = [chosen, tokens, shares];
    [this.threshold, this.renormalize] = [threshold, renormalize];
  }

  /** The position. */
  get pos(): number {
    return this.tokens.length - 1;
  }

  /** Those that count, as `ContributionGraph.edges` names and counts them, layer after layer. */
  edges(): GraphEdge[] {
    const [pos, least] = [this.pos, this.renormalize ? 0 : checkedThreshold(this.threshold)];
    return this.shares.attention.flatMap((attention, layer) => {
      const entering = layer === 0 ? "X0" : `I${layer - 1}`;
      const [after, ffn, leaving] = ["A", "M", "I"].map((kind) => `${kind}${layer}_${pos}`) as [string, string, string];
      const fixed = { layer, targetPos: pos };
      const found: GraphEdge[] = Array.from(attention, (share, sourcePos) => {
        const isOwn = sourcePos === pos;
        const weight = isOwn ? Math.fround(share + (this.shares.attentionResidual[layer] as number)) : share;
        const kind = isOwn ? "residual" : "attention";
        return { source: `${entering}_${sourcePos}`, target: after, weight, kind, sourcePos, ...fixed };
      });
      const [within, past] = [this.shares.ffn[layer] as number, this.shares.ffnResidual[layer] as number];
      const own = { sourcePos: pos, ...fixed };
      found.push(
        { source: after, target: ffn, weight: within, kind: "ffn", ...own },
        { source: ffn, target: leaving, weight: within, kind: "ffn", ...own },
        { source: after, target: leaving, weight: past, kind: "ffn_residual", ...own },
      );
      return found.filter(({ weight }) => weight > least);
    });
  }
}

/**
 * Go on with a text, and give for each new token the row of the contribution graph of the position that chose it. The rows
 * come when the text is whole, of its run, which is current then: a row is as much work as the text is long, where the whole
 * graph takes its square. The time and the signal of the options are those of each call.
 *
 * @throws InvalidRequestError a threshold that is no number from 0 to 1, or as `generate`.
 * @throws NotSupportedError the server or the model cannot go on with texts, or the server is too old.
 */
export async function* growingGraph(
  llm: RemoteTransparentLlm,
  prompt: string,
  options: GrowingGraphOptions = {},
): AsyncGenerator<GraphRow> {
  const { threshold = 0.04, renormalize = true, norm = "l1", onStep, ...settings } = options;
  checkedThreshold(threshold);
  const chosen: NextToken[] = [];
  const keep = (step: GenerationStep): void => {
    chosen.push(...step.filter((token) => token !== undefined));
    onStep?.(step);
  };
  await llm.generate([prompt], { ...settings, onStep: keep });
  const [own, how] = [llm.copy(), { threshold, renormalize, norm }];
  const call: CallOptions = { signal: settings.signal, timeoutMs: settings.timeoutMs };
  const texts = (await own.describeRun(call)).map(({ text }) => text);
  const { nLayers } = await own.modelInfo(call);
  for (let begin = 0; begin < chosen.length; begin += AT_ONCE) {
    const tokens = chosen.slice(begin, begin + AT_ONCE);
    const first = texts.length - chosen.length + begin;
    const targets = tokens.map((_, i) => first + i);
    const layers = await own.fetchParts(
      Array.from({ length: nLayers }, (_, layer) => ["contributionEdgesTo", 0, layer, { ...how, targets }] as const),
      call,
    );
    yield* tokens.map(
      (token, i) => new GraphRow(token, texts.slice(0, first + i + 1), sharesOf(layers, i, first + i), how),
    );
  }
}

/** Of one target of what came for each layer. */
function sharesOf(layers: readonly ReadonlyMap<string, Tensor>[], target: number, pos: number): RowShares {
  const column = (name: string): Float32Array =>
    Float32Array.from(layers, (parts) => (parts.get(name) as Tensor).at(target));
  return {
    attention: layers.map((parts) => {
      const attention = parts.get("attention") as Tensor;
      const start = target * (attention.shape[1] as number);
      return attention.toFloat32().slice(start, start + pos + 1);
    }),
    attentionResidual: column("attention_residual"),
    ffn: column("ffn"),
    ffnResidual: column("ffn_residual"),
  };
}
