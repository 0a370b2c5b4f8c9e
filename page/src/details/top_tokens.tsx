/** The tokens that the residual stream predicts at one place, and how they got there. */

import type { JSX } from "preact";
import { type GraphNode, nodeName } from "../graph/selection.js";
import { usePage } from "../page_state.js";
import type { RunView } from "../run/run_view.js";
import { Reading } from "../shown/reading.js";
import { useRead } from "../shown/use_read.js";
import { numbersOf } from "./numbers.js";
import { tokensOf } from "./spoken_for.js";
import { placeOf, readBefore } from "./stream_place.js";
import { type TokenRow, TokenTable } from "./token_table.js";

const SHOWN = 30;

export function TopTokens({ run, node }: { readonly run: RunView; readonly node: GraphNode }): JSX.Element {
  const isNormalized = usePage().normalize.value;
  const rows = useRead((signal) => topTokens(run, node, isNormalized, signal), [run, nodeName(node), isNormalized]);
  return (
    <section data-part="top">
      <Reading of={rows}>{(found) => <TokenTable name="top" caption="Top tokens" rows={found} />}</Reading>
    </section>
  );
}

async function topTokens(
  run: RunView,
  node: GraphNode,
  isNormalized: boolean,
  signal: AbortSignal,
): Promise<TokenRow[]> {
  const how = { positions: [node.pos], normalize: isNormalized ? "own" : "none", signal } as const;
  const { layer, point } = placeOf(node);
  const lens = await run.llm.layerLens(0, layer, { ...how, point, k: tokensOf(run, SHOWN) });
  const ids = numbersOf(lens.topIds);
  const [tokens, before] = await Promise.all([
    run.llm.tokensToStrings(ids, { signal }),
    readBefore(node, ({ layer, point }) => run.llm.layerLens(0, layer, { ...how, point, tokenIds: ids })),
  ]);
  const ranks = before && numbersOf(before.targetRanks);
  const logsumexp = lens.logsumexp.at(0);
  return numbersOf(lens.topLogits).map((score, i) => ({
    id: ids[i] as number,
    token: tokens[i] as string,
    score,
    probability: isNormalized ? Math.exp(score - logsumexp) : undefined,
    rankBefore: ranks && (ranks[i] as number) + 1,
  }));
}
