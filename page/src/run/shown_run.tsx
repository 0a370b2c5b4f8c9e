/** Which run it is that all views show: the field for the sentence may say another one. */

import type { JSX } from "preact";
import { useEditWords } from "../compare/use_edit_words.js";
import { usePage } from "../page_state.js";
import { shortened } from "../shown/token_text.js";
import type { RunView } from "./run_view.js";

export function ShownRun({ run }: { readonly run: RunView }): JSX.Element {
  const page = usePage();
  const other = page.other.value;
  const words = useEditWords(run, run.edits);
  return (
    <div class="toolbar shown-run">
      <p>
        Shown: <bdi>“{shortened(run.tokens)}”</bdi>
        {words.length > 0 && (
          <strong>
            {" "}
            with {words.length === 1 ? "an edit" : "edits"}: {words.join("; ")}
          </strong>
        )}
      </p>
      {other !== undefined && (
        <button type="button" name="swap" onClick={() => page.swap()}>
          Look at the {nameOf(other, run)}
        </button>
      )}
    </div>
  );
}

function nameOf(other: RunView, run: RunView): string {
  if (other.edits.length > 0) {
    return "edited run";
  }
  return run.edits.length > 0 ? "unedited run" : "other sentence";
}
