/** All heads of a layer side by side, and one of them at full size. */

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { RunView } from "../run/run_view.js";
import { Heatmap } from "../shown/heatmap.js";
import { Reading } from "../shown/reading.js";
import { visible } from "../shown/token_text.js";
import { useRead } from "../shown/use_read.js";
import type { HeadPlace } from "./head_place.js";
import { LayerPatterns, PATTERN_NAMES, type PatternKind } from "./layer_patterns.js";
import { type Pair, Thumbnail } from "./thumbnail.js";

interface Place {
  readonly place: HeadPlace;
  readonly onChoose: (place: HeadPlace) => void;
}

export function HeadPatterns({ run, place, onChoose }: { readonly run: RunView } & Place): JSX.Element {
  const [kind, setKind] = useState<PatternKind>("attention");
  const read = useRead((signal) => LayerPatterns.read(run, place.layer, kind, signal), [run, place.layer, kind]);
  return (
    <section class="card head-patterns" aria-label="The heads of a layer">
      <div class="toolbar">
        <label>
          Layer{" "}
          <select
            name="layer"
            value={place.layer}
            onChange={(event) => onChoose({ ...place, layer: Number(event.currentTarget.value) })}
          >
            {Array.from({ length: run.model.nLayers }, (_, layer) => (
              <option key={`layer ${layer}`} value={layer}>
                {layer}
              </option>
            ))}
          </select>
        </label>
        <label>
          Show{" "}
          <select name="pattern" value={kind} onChange={(event) => setKind(event.currentTarget.value as PatternKind)}>
            {Object.entries(PATTERN_NAMES).map(([value, name]) => (
              <option key={value} value={value}>
                {name}
              </option>
            ))}
          </select>
        </label>
      </div>
      <Reading of={read}>
        {(patterns) => (
          <>
            <Thumbnails run={run} patterns={patterns} place={place} onChoose={onChoose} />
            <OneHead run={run} patterns={patterns} head={place.head} />
          </>
        )}
      </Reading>
    </section>
  );
}

function Thumbnails({
  run,
  patterns,
  place,
  onChoose,
}: { readonly run: RunView; readonly patterns: LayerPatterns } & Place): JSX.Element {
  const [pair, setPair] = useState<Pair>();
  return (
    <>
      <div class="thumbnails" role="group" aria-label={`Heads of layer ${patterns.layer}`} data-layer={patterns.layer}>
        {Array.from({ length: run.model.nHeads }, (_, head) => (
          <Thumbnail
            key={`head ${head}`}
            patterns={patterns}
            head={head}
            nTokens={run.nTokens}
            isChosen={place.head === head}
            onChoose={() => onChoose({ ...place, head })}
            onPoint={setPair}
          />
        ))}
      </div>
      <output class="pair-words">
        {pair === undefined
          ? "Rows are the positions that attend, columns what they attend to. Point at one, or choose a head."
          : pairWords(run, patterns, pair)}
      </output>
    </>
  );
}

function OneHead({
  run,
  patterns,
  head,
}: {
  readonly run: RunView;
  readonly patterns: LayerPatterns;
  readonly head: number;
}): JSX.Element {
  const labels = run.tokens.map((token) => visible(token));
  return (
    <Heatmap
      title={`Layer ${patterns.layer}, head ${head}: ${PATTERN_NAMES[patterns.kind]}`}
      rows={labels}
      columns={labels}
      value={(query, key) => patterns.at(head, query, key)}
      most={patterns.most}
      words={({ row, column }) => pairWords(run, patterns, { head, query: row, key: column })}
    />
  );
}

function pairWords(run: RunView, patterns: LayerPatterns, { head, query, key }: Pair): string {
  const value = patterns.at(head, query, key);
  const name = (position: number): string => `${visible(run.tokens[position] ?? "")} (${position})`;
  const words = Number.isNaN(value) ? "it comes later" : value.toFixed(4);
  return `Head ${head}: ${name(query)} from ${name(key)}: ${words}`;
}
