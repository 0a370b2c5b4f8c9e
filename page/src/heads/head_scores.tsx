/** How much each head attends in one way: layers, the last on top, by heads. */

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { HeadScoreKind } from "transparent-llm/web";
import type { RunView } from "../run/run_view.js";
import { Problem } from "../shown/advice.js";
import { Heatmap } from "../shown/heatmap.js";
import { useLayers } from "../shown/use_layers.js";
import type { HeadPlace } from "./head_place.js";

const KINDS: readonly (readonly [HeadScoreKind, string, string])[] = [
  ["induction", "induction", "Attention to the token after an earlier occurrence of the same token."],
  ["previous", "previous token", "Attention to the token before."],
  ["duplicate", "duplicate token", "Attention to earlier occurrences of the same token."],
  ["first", "first position", "Attention to the first position."],
  ["self", "itself", "Attention to the position itself."],
  ["entropy", "entropy", "Entropy of the attention of a position, in nats."],
];

export function HeadScores({
  run,
  onChoose,
}: {
  readonly run: RunView;
  readonly onChoose: (place: HeadPlace) => void;
}): JSX.Element {
  const [kind, setKind] = useState<HeadScoreKind>("induction");
  const { nLayers, nHeads } = run.model;
  const { layers, error, isComing } = useLayers(
    nLayers,
    async (layer, signal) => (await run.llm.headScores(0, layer, { kind, signal })).toFloat64(),
    [run, kind],
  );
  const isAboutRepeats = kind === "induction" || kind === "duplicate";
  const hasNoRepeat = new Set(run.tokenIds).size === run.nTokens;
  const layerOf = (row: number): number => nLayers - 1 - row;
  const most = kind === "entropy" ? Math.log(Math.max(2, run.nTokens)) : 1;
  return (
    <section class="card" aria-label="Scores of heads" aria-busy={isComing}>
      <label>
        Score{" "}
        <select name="score" value={kind} onChange={(event) => setKind(event.currentTarget.value as HeadScoreKind)}>
          {KINDS.map(([value, name]) => (
            <option key={value} value={value}>
              {name}
            </option>
          ))}
        </select>
      </label>
      <p class="quiet">
        {KINDS.find(([value]) => value === kind)?.[2]} A mean over the positions that can. Bright: {most.toFixed(1)}.
        {isAboutRepeats && hasNoRepeat && (
          <strong> No token of this row occurs twice: no position can, and all are 0.</strong>
        )}
      </p>
      {error !== undefined && <Problem error={error} />}
      <Heatmap
        title={`Scores of heads: ${kind}`}
        rows={Array.from({ length: nLayers }, (_, row) => `layer ${layerOf(row)}`)}
        columns={Array.from({ length: nHeads }, (_, head) => `head ${head}`)}
        value={(row, head) => layers[layerOf(row)]?.[head] ?? Number.NaN}
        most={most}
        words={({ row, column }, value) =>
          `Layer ${layerOf(row)}, head ${column}: ${Number.isNaN(value) ? "…" : value.toFixed(4)}`
        }
        onChoose={({ row, column }) => onChoose({ layer: layerOf(row), head: column })}
      />
    </section>
  );
}
