/** What to run: a model and a sentence. */

import type { JSX } from "preact";
import { EXAMPLES, usePage } from "../page_state.js";

const MOST_CHARACTERS = 100_000;

export function RunForm(): JSX.Element {
  const page = usePage();
  const sentence = page.sentence.value;
  const setSentence = (text: string): void => {
    page.sentence.value = text;
  };
  const models = page.connection.server.value?.models ?? [];
  const isBusy = page.status.value.kind === "busy";
  return (
    <form
      class="run"
      onSubmit={(event) => {
        event.preventDefault();
        void page.runSentence();
      }}
    >
      {models.length > 1 && (
        <label>
          Model
          <select
            name="model"
            value={page.model.value}
            onChange={(event) => {
              page.model.value = event.currentTarget.value;
            }}
          >
            {models.map(({ name }) => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </select>
        </label>
      )}
      <label class="sentence">
        Sentence
        <textarea
          name="sentence"
          rows={2}
          maxLength={MOST_CHARACTERS}
          dir="auto"
          value={sentence}
          onInput={(event) => setSentence(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
              event.currentTarget.form?.requestSubmit();
            }
          }}
        />
      </label>
      <div class="toolbar">
        <button type="submit" class="primary">
          Run
        </button>
        <button type="button" disabled={!isBusy} onClick={() => page.stop()}>
          Stop
        </button>
        <label>
          Example
          <select
            name="example"
            value={EXAMPLES.find((example) => example === sentence) ?? ""}
            onChange={(event) => {
              setSentence(event.currentTarget.value);
            }}
          >
            <option value="" hidden>
              your own
            </option>
            {EXAMPLES.map((example) => (
              <option key={example}>{example}</option>
            ))}
          </select>
        </label>
      </div>
    </form>
  );
}
