/** The logit lens of both runs, as one map of changes. */

import type { JSX } from "preact";
import { usePage } from "../page_state.js";
import { Heatmap } from "../shown/heatmap.js";
import { Reading } from "../shown/reading.js";
import { visible } from "../shown/token_text.js";
import { useRead } from "../shown/use_read.js";
import { type LensDifference, lensDifference } from "./lens_difference.js";
import { changeWords, type Pair } from "./pair.js";

/** The last layer is at the top, as in the graph. */
export function LensDifferenceView({ pair }: { readonly pair: Pair }): JSX.Element {
  const read = useRead(
    (signal) => lensDifference(pair, signal),
    [pair.first.llm.runId, pair.second.llm.runId, pair.by],
  );
  return (
    <section class="card lens-difference">
      <h3>Logit lens: change of the first one’s prediction</h3>
      <Reading of={read}>{(lens) => <Changes pair={pair} lens={lens} />}</Reading>
    </section>
  );
}

function Changes({ pair, lens }: { readonly pair: Pair; readonly lens: LensDifference }): JSX.Element {
  const page = usePage();
  const { alignment, labels, names } = pair;
  const nLayers = lens.first.length;
  const layerOf = (row: number): number => nLayers - 1 - row;
  const both = (row: number, column: number): readonly [number, number] => {
    const layer = layerOf(row);
    return [lens.first[layer]?.[column] ?? Number.NaN, lens.second[layer]?.[column] ?? Number.NaN];
  };
  return (
    <Heatmap
      title={`Probability of the token that “${names[0]}” predicts at each position: ${names[1]} less ${names[0]}`}
      kind="signed"
      rows={Array.from({ length: nLayers }, (_, row) => `layer ${layerOf(row)}`)}
      columns={labels}
      value={(row, column) => {
        const [p, q] = both(row, column);
        return q - p;
      }}
      words={({ row, column }, change) => {
        const [p, q] = both(row, column);
        const token = visible(lens.tokens[column] ?? "");
        return `layer ${layerOf(row)}, ${labels[column]} (${column + alignment.offsets[0]}): “${token}” ${p.toFixed(4)} → ${q.toFixed(4)}, ${changeWords(change)}`;
      }}
      onChoose={({ column }) => {
        page.start.value = column + alignment.offsets[0];
      }}
    />
  );
}
