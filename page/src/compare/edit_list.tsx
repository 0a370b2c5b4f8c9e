/** The edits of the draft in words, and the button that runs them. */

import type { JSX } from "preact";
import { usePage } from "../page_state.js";
import type { RunView } from "../run/run_view.js";
import { Problem } from "../shown/advice.js";
import { canRun } from "./draft.js";
import { useEditWords } from "./use_edit_words.js";

export function EditList({ run }: { readonly run: RunView }): JSX.Element {
  const page = usePage();
  const draft = page.draft.value;
  const allWords = useEditWords(run, draft);
  const remove = (index: number): void => {
    page.draft.value = draft.filter((_, i) => i !== index);
  };
  return (
    <div class="edit-list">
      {draft.length === 0 ? (
        <p class="quiet">No edits yet. The details of the graph offer some too.</p>
      ) : (
        <ol aria-label="Edits">
          {draft.map((_, i) => {
            const words = allWords[i] as string;
            return (
              <li key={`${i}-${words}`}>
                {words}{" "}
                <button type="button" aria-label={`Remove: ${words}`} onClick={() => remove(i)}>
                  ✕
                </button>
              </li>
            );
          })}
        </ol>
      )}
      <button
        type="button"
        class="run-edits"
        disabled={!canRun(draft, page.source.value !== undefined)}
        onClick={() => void page.compareWith({ tokens: run.tokenIds, edits: draft })}
      >
        Run with these edits
      </button>
      {page.refused.value?.what === "edits" && <Problem error={page.refused.value.error} />}
    </div>
  );
}
