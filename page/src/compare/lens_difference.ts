/** How the logit lens of two runs differs, layer by layer and position by position. */

import type { RunView } from "../run/run_view.js";
import { upwards } from "../shown/layers.js";
import type { Pair } from "./pair.js";

/** Positions of one read: it has a number for each of their tokens at each of them. */
const MOST_POSITIONS = 64;

/** Of each pair of positions the token that the first run predicts there, and its probability in both. */
export interface LensDifference {
  /** The text of the token of each pair. */
  readonly tokens: readonly string[];
  /** Of each layer, the probability at each pair. */
  readonly first: readonly Float64Array[];
  readonly second: readonly Float64Array[];
}

/** Read it. All of it is of the pairs alone. */
export async function lensDifference(pair: Pair, signal: AbortSignal): Promise<LensDifference> {
  const { first, second, alignment } = pair;
  const [from, otherFrom] = alignment.offsets;
  const { nLayers } = first.model;
  const pairs = Array.from({ length: alignment.count }, (_, i) => i);
  const positions = pairs.map((i) => i + from);
  const { topIds } = await first.llm.layerLens(0, nLayers - 1, { positions, k: 1, signal });
  const ids = Array.from(topIds.toFloat64());
  const [tokens, layers] = await Promise.all([
    first.llm.tokensToStrings(ids, { signal }),
    collected(
      upwards(nLayers, async (layer) => [
        await probabilities(first, layer, from, ids, signal),
        await probabilities(second, layer, otherFrom, ids, signal),
      ]),
    ),
  ]);
  return { tokens, first: layers.map(([p]) => p as Float64Array), second: layers.map(([, q]) => q as Float64Array) };
}

/** Of one token at each position from one on. */
async function probabilities(
  { llm }: RunView,
  layer: number,
  from: number,
  ids: readonly number[],
  signal: AbortSignal,
): Promise<Float64Array> {
  const found = new Float64Array(ids.length);
  for (let begin = 0; begin < ids.length; begin += MOST_POSITIONS) {
    const part = ids.slice(begin, begin + MOST_POSITIONS);
    const tokenIds = [...new Set(part)];
    const positions = part.map((_, i) => from + begin + i);
    const { targetLogits, logsumexp } = await llm.layerLens(0, layer, { positions, tokenIds, signal });
    const [logits, all] = [targetLogits.toFloat32(), logsumexp.toFloat32()];
    part.forEach((id, i) => {
      const logit = logits[i * tokenIds.length + tokenIds.indexOf(id)] as number;
      found[begin + i] = Math.exp(logit - (all[i] as number));
    });
  }
  return found;
}

async function collected<T>(values: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const value of values) {
    found.push(value);
  }
  return found;
}
