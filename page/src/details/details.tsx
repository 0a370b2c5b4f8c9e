/** What is open beside the graph: of the pinned nodes and edges, and of the one that is selected. */

import type { JSX } from "preact";
import { isSame, type Selection, selectionName } from "../graph/selection.js";
import { usePage } from "../page_state.js";
import type { RunView } from "../run/run_view.js";
import { EdgeDetails } from "./edge_details.js";
import { FfnDetails } from "./ffn_details.js";
import { NodeDetails } from "./node_details.js";
import "./details.css";

export function Details({ run }: { readonly run: RunView }): JSX.Element {
  const { pins, selection } = usePage();
  const chosen = selection.value;
  const isPinned = pins.value.some((pin) => isSame(pin, chosen));
  const open = chosen === undefined || isPinned ? pins.value : [chosen, ...pins.value];
  return (
    <aside class="details" aria-label="Details">
      {open.length === 0 && (
        <p class="placeholder">
          Click a circle for its top tokens, an edge into attention for its heads, a square for its neurons.
        </p>
      )}
      {open.map((each) => (
        <Opened key={selectionName(each)} selection={each} run={run} />
      ))}
    </aside>
  );
}

/** A card for one selection. */
function Opened({ selection, run }: { readonly selection: Selection; readonly run: RunView }): JSX.Element {
  const page = usePage();
  const isPinned = page.pins.value.some((pin) => isSame(pin, selection));
  return (
    <section class="card" data-selection={selectionName(selection)}>
      <div class="toolbar">
        <button type="button" aria-pressed={isPinned} onClick={() => page.togglePin(selection)}>
          {isPinned ? "Unpin" : "Pin"}
        </button>
      </div>
      {content(selection, run)}
    </section>
  );
}

function content(selection: Selection, run: RunView): JSX.Element {
  if (selection.what === "node") {
    const { node } = selection;
    return node.kind === "M" ? <FfnDetails run={run} node={node} /> : <NodeDetails run={run} node={node} />;
  }
  const { target } = selection.ends;
  return target.kind === "A" ? (
    <EdgeDetails run={run} ends={selection.ends} />
  ) : (
    <FfnDetails run={run} node={{ ...target, kind: "M" }} />
  );
}
