/** Edits in words, with the texts of the tokens that they steer toward. */

import type { EditSpec } from "../recipe/recipe.js";
import type { RunView } from "../run/run_view.js";
import { visible } from "../shown/token_text.js";
import { useRead } from "../shown/use_read.js";
import { editWords } from "./edit_words.js";

/** Of each edit; tokens are numbers until their texts have arrived. */
export function useEditWords(run: RunView, edits: readonly EditSpec[]): string[] {
  const ids = [...new Set(edits.flatMap((spec) => (spec.op === "steer" ? [spec.token] : [])))];
  const names = useRead(
    async (signal) => {
      const strings = ids.length === 0 ? [] : await run.llm.tokensToStrings(ids, { signal });
      return new Map(ids.map((id, i) => [id, strings[i] as string]));
    },
    [run.llm.runId, ids.join()],
  );
  return edits.map((spec) =>
    editWords(spec, (id) => {
      const name = names.value?.get(id);
      return name === undefined ? `token ${id}` : `“${visible(name)}”`;
    }),
  );
}
