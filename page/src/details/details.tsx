/** What is open beside the graph: of the pinned nodes and edges, and of the one that is selected. */

import type { JSX, RefObject } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { isSame, type Selection, selectionName } from "../graph/selection.js";
import { usePage } from "../page_state.js";
import type { RunView } from "../run/run_view.js";
import { EdgeDetails } from "./edge_details.js";
import { FfnDetails } from "./ffn_details.js";
import { NodeDetails } from "./node_details.js";
import "./details.css";

/** As in style.css, where the graph and its details share a row on wider screens. */
const BELOW = "(max-width: 60rem)";

export function Details({ run }: { readonly run: RunView }): JSX.Element {
  const { pins, selection } = usePage();
  const chosen = selection.value;
  const isPinned = pins.value.some((pin) => isSame(pin, chosen));
  const open = chosen === undefined || isPinned ? pins.value : [chosen, ...pins.value];
  const aside = useRef<HTMLElement>(null);
  useLookingAtWhatOpens(aside, chosen);
  return (
    <aside class="details" aria-label="Details" ref={aside} tabIndex={-1}>
      {open.length > 0 && (
        <button type="button" class="back-to-graph" onClick={lookAtGraph}>
          Back to the graph
        </button>
      )}
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

/** On a screen where details are below the graph: goes there with what is opened, as nobody would see it. */
function useLookingAtWhatOpens(aside: RefObject<HTMLElement>, chosen: Selection | undefined): void {
  const before = useRef(chosen);
  useEffect(() => {
    const isNew = chosen !== undefined && !isSame(before.current, chosen);
    before.current = chosen;
    if (isNew && matchMedia(BELOW).matches) {
      aside.current?.scrollIntoView();
      aside.current?.focus({ preventScroll: true });
    }
  }, [aside, chosen]);
}

function lookAtGraph(): void {
  const graph = document.querySelector<HTMLElement>(".graph .canvas-keys");
  graph?.scrollIntoView({ block: "center" });
  graph?.focus({ preventScroll: true });
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
