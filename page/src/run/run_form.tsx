/** What to run: a model and a sentence. */

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { usePage } from "../page_state.js";
import { Problem } from "../shown/advice.js";
import { DatasetChoice } from "./dataset_choice.js";
import { EXAMPLES, sentencesOf, withSentence } from "./sentences.js";

const MOST_CHARACTERS = 100_000;
const MOST_NEW_TOKENS = 1000;

/** How far the model goes on by itself. */
function GoOn(): JSX.Element {
  const page = usePage();
  const [count, setCount] = useState(10);
  const [isDrawn, setIsDrawn] = useState(true);
  return (
    <span class="toolbar">
      <button type="button" name="go-on" onClick={() => void page.goOn(count, isDrawn)}>
        Let it go on
      </button>
      <label>
        for
        <input
          type="number"
          name="new-tokens"
          min="1"
          max={MOST_NEW_TOKENS}
          value={count}
          onChange={(event) => setCount(Math.min(MOST_NEW_TOKENS, Math.max(1, Number(event.currentTarget.value) || 1)))}
        />
      </label>{" "}
      tokens
      <label title="For each column the model reads the text so far once more.">
        <input
          type="checkbox"
          name="draw-growing"
          checked={isDrawn}
          onChange={(event) => setIsDrawn(event.currentTarget.checked)}
        />{" "}
        draw its graph meanwhile
      </label>
    </span>
  );
}

export function RunForm(): JSX.Element {
  const page = usePage();
  const sentence = page.sentence.value;
  const setSentence = (text: string): void => {
    page.sentence.value = text;
  };
  const [sentences, setSentences] = useState<readonly string[]>(EXAMPLES);
  const [error, setError] = useState<unknown>();
  const choose = (chosen: string): void => {
    setSentence(chosen);
    setSentences(withSentence(sentences, chosen));
  };
  const open = async (file: File | undefined): Promise<void> => {
    try {
      const found = file === undefined ? [] : await sentencesOf(file);
      setSentences(found.reduce(withSentence, sentences));
      setSentence(found.at(-1) ?? sentence);
      setError(undefined);
    } catch (problem) {
      setError(problem);
    }
  };
  const models = page.connection.server.value?.models ?? [];
  const isBusy = page.status.value.kind === "busy";
  return (
    <form
      class="run"
      onSubmit={(event) => {
        event.preventDefault();
        choose(sentence);
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
        <GoOn />
        <DatasetChoice
          onChoose={(found) => {
            setSentences(found);
            setSentence(found.at(-1) ?? sentence);
          }}
        />
        <label>
          Sentences
          <select name="sentences" value={sentence} onChange={(event) => choose(event.currentTarget.value)}>
            {!sentences.includes(sentence) && <option value={sentence}>(what is typed)</option>}
            {sentences.map((each) => (
              <option key={each} value={each}>
                {each}
              </option>
            ))}
          </select>
        </label>
        <label class="file">
          Open a file of sentences, one a line
          <input
            type="file"
            name="file"
            accept="text/*"
            onChange={(event) => void open(event.currentTarget.files?.[0])}
          />
        </label>
      </div>
      {error !== undefined && <Problem error={error} />}
    </form>
  );
}
