/** Another sentence to run beside the one that is shown. */

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { usePage } from "../page_state.js";

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
    </form>
  );
}
