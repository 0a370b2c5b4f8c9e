/** A logit taken apart: which layers, heads, tokens and neurons are for it, and which against it. */

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { RunView } from "../run/run_view.js";
import { Problem } from "../shown/advice.js";
import { Reading } from "../shown/reading.js";
import { TokenField } from "../shown/single_token.js";
import { visible } from "../shown/token_text.js";
import { useRead } from "../shown/use_read.js";
import "./attribution.css";
import { LayerTerms } from "./layer_terms.js";
import { type LogitTarget, type TargetChoice, type TargetState, useTarget } from "./logit_target.js";
import { readLogitSum } from "./logit_terms.js";
import { SumTable } from "./sum_table.js";

export function AttributionTab({ run }: { readonly run: RunView }): JSX.Element {
  const [choice, setChoice] = useState<TargetChoice>({ position: run.nTokens - 1, text: "", minusText: "" });
  const state = useTarget(run, choice);
  return (
    <div class="attribution-tab">
      <TargetControls run={run} choice={choice} onChoice={setChoice} state={state} />
      {state.top.error !== undefined && <Problem error={state.top.error} />}
      {state.target === undefined ? (
        <p class="placeholder">The logit is taken apart as soon as its token is known.</p>
      ) : (
        <TakenApart run={run} target={state.target} />
      )}
    </div>
  );
}

function TargetControls({
  run,
  choice,
  onChoice,
  state,
}: {
  readonly run: RunView;
  readonly choice: TargetChoice;
  readonly onChoice: (choice: TargetChoice) => void;
  readonly state: TargetState;
}): JSX.Element {
  return (
    <fieldset class="controls">
      <legend>The logit</legend>
      <label>
        Position
        <select
          name="position"
          value={choice.position}
          onChange={(event) => onChoice({ ...choice, position: Number(event.currentTarget.value) })}
        >
          {run.tokens.map((token, position) => (
            <option key={`${position} ${token}`} value={position}>
              {position} {visible(token)}
            </option>
          ))}
        </select>
      </label>
      <TokenField
        label="Token"
        name="token"
        placeholder={state.top.value === undefined ? "the top token" : visible(state.top.value.text)}
        text={choice.text}
        onText={(text) => onChoice({ ...choice, text })}
        token={state.token}
      />
      <TokenField
        label="Minus token"
        name="minus-token"
        placeholder="none"
        text={choice.minusText}
        onText={(minusText) => onChoice({ ...choice, minusText })}
        token={state.minusToken}
      />
    </fieldset>
  );
}

function TakenApart({ run, target }: { readonly run: RunView; readonly target: LogitTarget }): JSX.Element {
  const sum = useRead((signal) => readLogitSum(run, target, signal), [run, target]);
  const totals = sum.value?.target === target ? sum.value.layers : undefined;
  return (
    <div class="attribution-both">
      <Reading of={sum}>{(value) => <SumTable sum={value} />}</Reading>
      <LayerTerms run={run} target={target} totals={totals} />
    </div>
  );
}
