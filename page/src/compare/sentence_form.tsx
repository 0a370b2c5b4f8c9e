/** Another sentence to run beside the one that is shown. */

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { usePage } from "../page_state.js";
import { Problem } from "../shown/advice.js";
import { shortened } from "../shown/token_text.js";

const MOST_CHARACTERS = 100_000;

export function SentenceForm(): JSX.Element {
  const page = usePage();
  const [sentence, setSentence] = useState("");
  return (
    <form
      class="other-sentence"
      onSubmit={(event) => {
        event.preventDefault();
        void page.compareWith({ sentence });
      }}
    >
      <label>
        Another sentence
        <textarea
          name="other-sentence"
          rows={2}
          required
          maxLength={MOST_CHARACTERS}
          dir="auto"
          value={sentence}
          onInput={(event) => setSentence(event.currentTarget.value)}
        />
      </label>
      <button type="submit">Run beside it</button>
      {page.refused.value?.what === "sentence" && <Problem error={page.refused.value.error} />}
      {page.source.value !== undefined && (
        <p class="quiet other-words" dir="auto">
          Edits that patch take from “{shortened(page.source.value.tokens)}”.
        </p>
      )}
    </form>
  );
}
