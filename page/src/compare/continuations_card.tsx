/** The plain and the edited continuation side by side, as they are written: where they part, and how far apart they are. */

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { usePage } from "../page_state.js";
import type { RunView } from "../run/run_view.js";
import { Problem } from "../shown/advice.js";
import { ContinuationTexts } from "./continuation_texts.js";
import { canRun } from "./draft.js";
import { useEditWords } from "./use_edit_words.js";
import "./continuations.css";

const MOST_NEW_TOKENS = 200;
const HOTTEST = 100;
const MOST_SEED = 2 ** 32 - 1;

export function ContinuationsCard({ run }: { readonly run: RunView }): JSX.Element {
  const page = usePage();
  const both = page.continuations.value;
  const refused = page.refused.value;
  return (
    <section class="card continuations" aria-label="Both go on">
      <h2>How both go on</h2>
      <p class="quiet">
        The model goes on with the tokens of this run, without edits and with those of the list, by the same settings.
      </p>
      <SettingsForm />
      {refused?.what === "continuations" && <Problem error={refused.error} />}
      {both !== undefined && <EditsOf run={run} />}
      {both !== undefined && <ContinuationTexts both={both} />}
    </section>
  );
}

function SettingsForm(): JSX.Element {
  const page = usePage();
  const [count, setCount] = useState(10);
  const [temperature, setTemperature] = useState(0);
  const [seed, setSeed] = useState(0);
  const isReady = canRun(page.draft.value, page.source.value !== undefined);
  return (
    <form
      class="toolbar"
      aria-label="How both go on"
      onSubmit={(event) => {
        event.preventDefault();
        void page.goOnBoth({ maxNewTokens: count, temperature, seed });
      }}
    >
      <NumberField label="Tokens" name="both-tokens" value={count} range={[1, MOST_NEW_TOKENS]} onValue={setCount} />
      <NumberField
        label="Temperature"
        name="both-temperature"
        value={temperature}
        range={[0, HOTTEST]}
        step="any"
        onValue={setTemperature}
      />
      <NumberField label="Seed" name="both-seed" value={seed} range={[0, MOST_SEED]} onValue={setSeed} />
      <button type="submit" name="go-on-both" disabled={!isReady}>
        Let both go on
      </button>
      {!isReady && <span class="quiet">Add edits to the list first.</span>}
    </form>
  );
}

function NumberField({
  label,
  name,
  value,
  range: [least, most],
  step = "1",
  onValue,
}: {
  readonly label: string;
  readonly name: string;
  readonly value: number;
  readonly range: readonly [least: number, most: number];
  readonly step?: string;
  readonly onValue: (value: number) => void;
}): JSX.Element {
  return (
    <label>
      {label}
      <input
        type="number"
        name={name}
        required
        min={least}
        max={most}
        step={step}
        value={value}
        onChange={(event) => onValue(event.currentTarget.valueAsNumber)}
      />
    </label>
  );
}

/** Those that were made, which the list may not have any more. */
function EditsOf({ run }: { readonly run: RunView }): JSX.Element {
  const words = useEditWords(run, usePage().continuations.value?.edits ?? []);
  return <p>Edited: {words.join("; ")}.</p>;
}
