/** The lens as a file. */

import type { ResidualPoint, TokenLogprobs } from "transparent-llm/web";
import type { RunView } from "../run/run_view.js";
import type { LensCell } from "./lens_layer.js";

/** What is saved: all that is shown. */
export interface SavedLens {
  readonly run: RunView;
  readonly point: ResidualPoint;
  readonly layers: readonly (readonly LensCell[])[];
  readonly logprobs: TokenLogprobs | undefined;
}

/** Numbers that are none become null. */
export function lensJson({ run, point, layers, logprobs }: SavedLens): string {
  const saved = {
    model: run.model.name,
    token_ids: run.tokenIds,
    tokens: run.tokens,
    point,
    next_token_logprobs: logprobs && Array.from(logprobs.logprobs.toFloat64()),
    next_token_ranks: logprobs && Array.from(logprobs.ranks.data, Number),
    layers,
  };
  return JSON.stringify(saved, undefined, 1);
}

const COLUMNS = [
  "layer,position,token_id,token,top_id,top_token,top_probability,entropy,kl",
  "chosen_id,chosen_token,chosen_rank,chosen_probability",
].join(",");

/** A line for each cell. Tokens are JSON strings, in which a space can be seen and no program sees a formula. */
export function lensCsv({ run, layers }: SavedLens): string {
  const lines = layers.flatMap((cells, layer) =>
    cells.map(({ top: [top], entropy, kl, chosen }, position) =>
      [
        ...[layer, position, run.tokenIds[position], text(run.tokens[position])],
        ...[top?.id, text(top?.token), top?.probability, entropy, kl],
        ...[chosen?.id, text(chosen?.token), chosen?.rank, chosen?.probability],
      ].join(","),
    ),
  );
  return `${[COLUMNS, ...lines].join("\r\n")}\r\n`;
}

function text(token: string | undefined): string {
  return token === undefined ? "" : `"${JSON.stringify(token).replaceAll('"', '""')}"`;
}
