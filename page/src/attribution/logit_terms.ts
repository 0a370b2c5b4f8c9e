/** The terms of a logit, and the logit that the model itself gave. */

import type { LogitTerms } from "transparent-llm/web";
import type { RunView } from "../run/run_view.js";
import type { LogitTarget } from "./logit_target.js";

/** Plain numbers. */
export interface LogitSum {
  readonly target: LogitTarget;
  readonly embedding: number;
  readonly layers: readonly number[];
  readonly normBias: number;
  readonly unembedBias: number;
  /** The divisor of the final norm, which is no term. */
  readonly scale: number;
  /** Of all terms. */
  readonly sum: number;
  /** What the model's output has there: after the soft cap, where a model has one. */
  readonly logit: number;
}

export async function readLogitSum(run: RunView, target: LogitTarget, signal: AbortSignal): Promise<LogitSum> {
  const { position, token, minusToken } = target;
  const [terms, logit, minus] = await Promise.all([
    run.llm.logitTerms(0, position, token, { minusToken, signal }),
    logitOf(run, position, token, signal),
    minusToken === undefined ? 0 : logitOf(run, position, minusToken, signal),
  ]);
  return { target, ...numbersOf(terms), logit: logit - minus };
}

function numbersOf(terms: LogitTerms): Omit<LogitSum, "target" | "logit"> {
  const layers = Array.from(terms.layers.toFloat64());
  const { embedding, normBias, unembedBias } = {
    embedding: terms.embedding.at(),
    normBias: terms.normBias.at(),
    unembedBias: terms.unembedBias.at(),
  };
  const sum = layers.reduce((all, layer) => all + layer, embedding + normBias + unembedBias);
  return { embedding, layers, normBias, unembedBias, scale: terms.scale.at(), sum };
}

async function logitOf(run: RunView, position: number, token: number, signal: AbortSignal): Promise<number> {
  const only = (index: number) => ({ start: index, stop: index + 1 });
  const slices = { batch: only(0), pos: only(position), d_vocab: only(token) };
  return (await run.llm.logits({ slices, dtype: "F32", signal })).at(0, 0, 0);
}
