/** What a part of a layer added to the residual stream: the tokens that it promotes, and those that it suppresses. */

import type { JSX } from "preact";
import { type GraphNode, nodeName } from "../graph/selection.js";
import { usePage } from "../page_state.js";
import type { RunView } from "../run/run_view.js";
import { Reading } from "../shown/reading.js";
import { useRead } from "../shown/use_read.js";
import { numbersOf } from "./numbers.js";
import { MOST_SPOKEN, named, type SpokenFor, SpokenTables, tokensOf } from "./spoken_for.js";
import { partBetween, placeOf, readBefore, type StreamPlace } from "./stream_place.js";

interface Added {
  readonly part: string;
  readonly isNormalized: boolean;
  readonly spoken: SpokenFor;
}

/** Of the part before a node that is no embedding. */
export function BlockTokens({ run, node }: { readonly run: RunView; readonly node: GraphNode }): JSX.Element {
  const isNormalized = usePage().normalize.value;
  const added = useRead(
    async (signal) => {
      const found = await readBefore(node, (before) => addedSince(run, node, before, isNormalized, signal));
      return found as Added; // there is a place before
    },
    [run, nodeName(node), isNormalized],
  );
  return (
    <section data-part="block">
      <Reading of={added}>
        {({ part, isNormalized, spoken }) => (
          <>
            <h3>Promoted by {part}</h3>
            <p class="quiet">
              {isNormalized
                ? "What it added, with the scale that the final norm has at this position (frozen), so that parts sum to the whole."
                : "What it added, not normalized."}
            </p>
            <SpokenTables of={spoken} />
          </>
        )}
      </Reading>
    </section>
  );
}

async function addedSince(
  run: RunView,
  node: GraphNode,
  before: StreamPlace,
  isNormalized: boolean,
  signal: AbortSignal,
): Promise<Added> {
  const { layer, point } = placeOf(node);
  const k = tokensOf(run, MOST_SPOKEN);
  const lens = await run.llm.layerLens(0, layer, {
    point,
    minusLayer: before.layer,
    minusPoint: before.point,
    positions: [node.pos],
    normalize: isNormalized ? "frozen" : "none",
    k,
    bottomK: k,
    signal,
  });
  const found = {
    topIds: numbersOf(lens.topIds),
    topLogits: numbersOf(lens.topLogits),
    bottomIds: numbersOf(lens.bottomIds),
    bottomLogits: numbersOf(lens.bottomLogits),
  };
  return { part: partBetween(node, before), isNormalized, spoken: await named(run, found, signal) };
}
