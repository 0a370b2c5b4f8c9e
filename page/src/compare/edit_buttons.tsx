/** Edits that fit to what of the graph is open: a click puts one into the draft. */

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { Selection } from "../graph/selection.js";
import { usePage } from "../page_state.js";
import type { EditSpec } from "../recipe/recipe.js";
import type { RunView } from "../run/run_view.js";
import { Problem } from "../shown/advice.js";
import { ablations, type Chosen, patchOf, placeOf } from "./choices.js";
import { addToDraft } from "./draft.js";
import { Pair } from "./pair.js";
import { SteerForm } from "./steer_form.js";
import "./compare.css";

/** For a node or an edge; with a head or a neuron of its layer, for that one. */
export function EditButtons({
  run,
  ...chosen
}: {
  readonly run: RunView;
  readonly selection: Selection;
  readonly head?: number | undefined;
  readonly neuron?: number | undefined;
}): JSX.Element {
  const page = usePage();
  const [error, setError] = useState<unknown>();
  const add = (spec: EditSpec): void => {
    try {
      addToDraft(page, spec);
      setError(undefined);
    } catch (problem) {
      setError(problem);
    }
  };
  const { site, pos } = placeOf(chosen);
  const count = page.draft.value.length;
  return (
    <div class="edit-buttons" role="group" aria-label="Edits">
      <div class="toolbar">
        {ablations(chosen).map(({ name, spec }) => (
          <button key={name} type="button" onClick={() => add(spec)}>
            {name}
          </button>
        ))}
        <PatchButton run={run} chosen={chosen} onAdd={add} />
      </div>
      {site.kind.startsWith("residual") && (
        <SteerForm run={run} onToken={(token, factor) => add({ op: "steer", site, positions: [pos], token, factor })} />
      )}
      {error !== undefined && <Problem error={error} />}
      {count > 0 && (
        <button
          type="button"
          onClick={() => {
            page.tab.value = "compare";
          }}
        >
          {count === 1 ? "1 edit" : `${count} edits`}: compare →
        </button>
      )}
    </div>
  );
}

function PatchButton({
  run,
  chosen,
  onAdd,
}: {
  readonly run: RunView;
  readonly chosen: Chosen;
  readonly onAdd: (spec: EditSpec) => void;
}): JSX.Element | null {
  const { source, alignedBy } = usePage();
  if (source.value === undefined) {
    return null;
  }
  const spec = patchOf(chosen, new Pair(run, source.value, alignedBy.value));
  return (
    <button
      type="button"
      disabled={spec === undefined}
      title={spec === undefined ? "The other sentence has no token there." : undefined}
      onClick={() => spec && onAdd(spec)}
    >
      Patch from the other sentence
    </button>
  );
}
