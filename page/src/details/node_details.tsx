/** What the residual stream says of the next token at one place. */

import type { JSX } from "preact";
import { EditButtons } from "../compare/edit_buttons.js";
import { type GraphNode, nodeWords } from "../graph/selection.js";
import type { RunView } from "../run/run_view.js";
import { visible } from "../shown/token_text.js";
import { BlockTokens } from "./block_tokens.js";
import { ChosenToken } from "./chosen_token.js";
import { hasBefore } from "./stream_place.js";
import { TopTokens } from "./top_tokens.js";

/** Of an embedding, or of the stream after attention or after a layer. */
export function NodeDetails({ run, node }: { readonly run: RunView; readonly node: GraphNode }): JSX.Element {
  return (
    <>
      <h2>The stream: {nodeWords(node, run.tokens, visible)}</h2>
      <ChosenToken run={run} node={node} />
      <TopTokens run={run} node={node} />
      {hasBefore(node) && <BlockTokens run={run} node={node} />}
      <EditButtons run={run} selection={{ what: "node", node }} />
    </>
  );
}
