/** The terms of a logit by layer and part: heads, the bias of attention, the feed-forward part. */

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { LogitAttribution } from "transparent-llm/web";
import type { RunView } from "../run/run_view.js";
import { Problem } from "../shown/advice.js";
import { type Cell, Heatmap } from "../shown/heatmap.js";
import { signed } from "../shown/signed.js";
import { useLayers } from "../shown/use_layers.js";
import { HeadSources } from "./head_sources.js";
import type { LogitTarget } from "./logit_target.js";
import { NeuronTerms } from "./neuron_terms.js";

/** The parts of one layer in plain numbers. */
export interface LayerTermsOf {
  readonly heads: readonly number[];
  readonly attnBias: number;
  readonly ffn: number;
  /** A part of `ffn`. */
  readonly ffnBias: number;
}

/** A part that has been opened, by its column. */
interface Opened {
  readonly layer: number;
  readonly column: number;
}

export function LayerTerms({
  run,
  target,
  totals,
}: {
  readonly run: RunView;
  readonly target: LogitTarget;
  /** Of each layer, as the whole sum has them; undefined until they are there. */
  readonly totals: readonly number[] | undefined;
}): JSX.Element {
  const { nLayers, nHeads } = run.model;
  const { position, token, minusToken } = target;
  const [opened, setOpened] = useState<Opened>();
  const { layers, error, isComing } = useLayers(
    nLayers,
    async (layer, signal) =>
      numbersOf(await run.llm.logitAttribution(0, layer, position, token, { minusToken, signal })),
    [run, position, token, minusToken],
  );
  const columns = [...Array.from({ length: nHeads }, (_, head) => `head ${head}`), "attn bias", "ffn"];
  const layerOf = (row: number): number => nLayers - 1 - row;
  const at = ({ row, column }: Cell): number => termAt(layers[layerOf(row)], column);
  const open = opened && layers[opened.layer];
  return (
    <section class="card" aria-label="The terms by layer and part" aria-busy={isComing}>
      {error !== undefined && <Problem error={error} />}
      <Heatmap
        title={`Terms of ${target.name} at position ${position}`}
        kind="signed"
        rows={Array.from({ length: nLayers }, (_, row) => `layer ${layerOf(row)}`)}
        columns={columns}
        value={(row, column) => at({ row, column })}
        words={(cell, value) =>
          `Layer ${layerOf(cell.row)}, ${columns[cell.column]}: ${Number.isNaN(value) ? "…" : signed(value)}`
        }
        onChoose={({ row, column }) => setOpened({ layer: layerOf(row), column })}
      />
      <p class="quiet">
        Purple is for the token, orange against it. Choose a head for what it took from each token, the feed-forward
        part for its neurons.
      </p>
      {totals !== undefined && !isComing && error === undefined && <Check layers={layers} totals={totals} />}
      {opened !== undefined && open !== undefined && <Part {...{ run, target, opened, terms: open }} />}
    </section>
  );
}

function Check({
  layers,
  totals,
}: {
  readonly layers: readonly LayerTermsOf[];
  readonly totals: readonly number[];
}): JSX.Element {
  const differences = layers.map((terms, layer) => Math.abs(sumOf(terms) - (totals[layer] as number)));
  return (
    <p class="quiet">
      The parts of each layer add up to its term; the largest difference is{" "}
      <span data-value="parts-difference">{Math.max(...differences).toExponential(1)}</span>.
    </p>
  );
}

function Part({
  run,
  target,
  opened: { layer, column },
  terms,
}: {
  readonly run: RunView;
  readonly target: LogitTarget;
  readonly opened: Opened;
  readonly terms: LayerTermsOf;
}): JSX.Element {
  const { nHeads } = run.model;
  if (column < nHeads) {
    return <HeadSources {...{ run, target, layer }} head={column} term={termAt(terms, column)} />;
  }
  if (column > nHeads) {
    return <NeuronTerms {...{ run, target, layer, terms }} />;
  }
  return (
    <p>
      The bias of attention in layer {layer} is one vector, the same at all positions: {signed(terms.attnBias)}.
    </p>
  );
}

function termAt(terms: LayerTermsOf | undefined, column: number): number {
  const values = terms === undefined ? [] : [...terms.heads, terms.attnBias, terms.ffn];
  return values[column] ?? Number.NaN;
}

function sumOf({ heads, attnBias, ffn }: LayerTermsOf): number {
  return heads.reduce((sum, head) => sum + head, attnBias + ffn);
}

function numbersOf({ heads, attnBias, ffn, ffnBias }: LogitAttribution): LayerTermsOf {
  return { heads: Array.from(heads.toFloat64()), attnBias: attnBias.at(), ffn: ffn.at(), ffnBias: ffnBias.at() };
}
