/** A token that somebody wants to follow: what the residual stream gives to it at one place. */

import type { JSX } from "preact";
import { type GraphNode, nodeName } from "../graph/selection.js";
import { usePage } from "../page_state.js";
import type { RunView } from "../run/run_view.js";
import { Reading } from "../shown/reading.js";
import { TokenField, type TypedToken, useSingleToken } from "../shown/single_token.js";
import { TokenText } from "../shown/token_text.js";
import { useRead } from "../shown/use_read.js";
import { placeOf } from "./stream_place.js";

/** The same text for all nodes that are open, and for those that are opened later. */
export function ChosenToken({ run, node }: { readonly run: RunView; readonly node: GraphNode }): JSX.Element {
  const { tokenText } = usePage();
  const token = useSingleToken(run, tokenText.value);
  return (
    <section data-part="chosen">
      <TokenField
        label="A token, with the space before it"
        name="token-text"
        placeholder=" king"
        text={tokenText.value}
        onText={(text) => {
          tokenText.value = text;
        }}
        token={token}
      />
      {token.value !== undefined && <Found run={run} node={node} token={token.value} />}
    </section>
  );
}

function Found({
  run,
  node,
  token: { text, id },
}: {
  readonly run: RunView;
  readonly node: GraphNode;
  readonly token: TypedToken;
}): JSX.Element {
  const isNormalized = usePage().normalize.value;
  const found = useRead(
    async (signal) => {
      const { layer, point } = placeOf(node);
      const how = { point, positions: [node.pos], normalize: isNormalized ? "own" : "none", signal } as const;
      const lens = await run.llm.layerLens(0, layer, { ...how, tokenIds: [id] });
      const logit = lens.targetLogits.at(0, 0);
      const probability = isNormalized ? Math.exp(logit - lens.logsumexp.at(0)) : undefined;
      return { text, logit, rank: lens.targetRanks.at(0, 0) + 1, probability };
    },
    [run, nodeName(node), isNormalized, id],
  );
  return (
    <Reading of={found}>
      {({ text, logit, rank, probability }) => (
        <p>
          <TokenText token={text} />: logit <span data-logit>{logit.toFixed(3)}</span>, rank{" "}
          <span data-rank>{rank}</span> of {run.model.dVocab.toLocaleString("en")}
          {probability !== undefined && (
            <>
              , probability <span data-probability>{probability.toFixed(4)}</span>
            </>
          )}
        </p>
      )}
    </Reading>
  );
}
