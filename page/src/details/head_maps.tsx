/** What a head looks at, and what it brings: position by position. */

import type { JSX } from "preact";
import type { RunView } from "../run/run_view.js";
import { type Cell, Heatmap } from "../shown/heatmap.js";
import { Reading } from "../shown/reading.js";
import { visible } from "../shown/token_text.js";
import { useRead } from "../shown/use_read.js";
import { numbersOf, only } from "./numbers.js";
import { type Span, spanAround } from "./span.js";

/** One of them, or what all give together. */
export type Head = number | "all";

/** Where to look: a head, and the ends of an edge, around which a long row is cut. */
export interface HeadPlace {
  readonly layer: number;
  readonly head: Head;
  readonly target: number;
  readonly source: number;
}

/** What the cells have; row by row. */
type Cells = readonly number[];

interface Spans {
  /** Of positions that attend. */
  readonly rows: Span;
  /** Of positions that are attended to. */
  readonly columns: Span;
}

/** A head in words. */
export function headWords({ layer, head }: HeadPlace): string {
  return `${head === "all" ? "all heads" : `head ${head}`} of layer ${layer}`;
}

/** Attention probabilities; of all heads their mean. */
export function AttentionMap({ run, place }: { readonly run: RunView; readonly place: HeadPlace }): JSX.Element {
  const { layer, head } = place;
  const title =
    head === "all"
      ? `Attention of layer ${layer}, mean over ${run.model.nHeads} heads`
      : `Attention of layer ${layer}, head ${head}`;
  return <HeadMap run={run} place={place} title={title} most={1} read={attention} />;
}

/** What each position gave to each; of all heads their sum. */
export function ContributionMap({ run, place }: { readonly run: RunView; readonly place: HeadPlace }): JSX.Element {
  const { layer, head } = place;
  const title =
    head === "all"
      ? `Contribution of layer ${layer}, sum over ${run.model.nHeads} heads`
      : `Contribution of layer ${layer}, head ${head}`;
  return <HeadMap run={run} place={place} title={title} read={contributions} />;
}

/** Rows attend to columns; what lies above the diagonal is in the future, and has no value. */
function HeadMap({
  run,
  place,
  title,
  most,
  read,
}: {
  readonly run: RunView;
  readonly place: HeadPlace;
  readonly title: string;
  /** The value of the strongest colour. Default: the largest. */
  readonly most?: number;
  readonly read: (run: RunView, place: HeadPlace, spans: Spans, signal: AbortSignal) => Promise<Cells>;
}): JSX.Element {
  const { layer, head, target, source } = place;
  const map = useRead(
    async (signal) => {
      const spans = { rows: spanAround(target, run.nTokens), columns: spanAround(source, run.nTokens) };
      return { title, spans, cells: await read(run, place, spans, signal) };
    },
    [run, layer, head, target, source],
  );
  return (
    <Reading of={map}>
      {({ title, spans: { rows, columns }, cells }) => {
        const [rowNames, columnNames] = [labels(run, rows), labels(run, columns)];
        const width = columnNames.length;
        const words = ({ row, column }: Cell, value: number): string =>
          `${rowNames[row]} from ${columnNames[column]}: ${Number.isNaN(value) ? "nothing" : value.toFixed(4)}`;
        return (
          <>
            <Heatmap
              title={title}
              rows={rowNames}
              columns={columnNames}
              value={(row, column) =>
                columns.start + column > rows.start + row ? Number.NaN : (cells[row * width + column] as number)
              }
              most={most ?? cells.reduce((largest, value) => Math.max(largest, value), 0)}
              words={words}
            />
            {width < run.nTokens && (
              <p class="quiet">
                Positions {rows.start} to {rows.stop - 1} from {columns.start} to {columns.stop - 1} of {run.nTokens}.
              </p>
            )}
          </>
        );
      }}
    </Reading>
  );
}

async function attention(
  { llm }: RunView,
  { layer, head }: HeadPlace,
  { rows, columns }: Spans,
  signal: AbortSignal,
): Promise<Cells> {
  const options = { slices: { query_pos: rows, key_pos: columns }, signal } as const;
  if (head !== "all") {
    return numbersOf(await llm.attentionMatrix(0, layer, head, options));
  }
  const all = await llm.attentionMatrices(0, layer, options);
  const [nHeads] = all.shape as [number];
  const size = all.length / nHeads;
  const means = new Array<number>(size).fill(0);
  all.toFloat32().forEach((share, i) => {
    means[i % size] = (means[i % size] as number) + share / nHeads;
  });
  return means;
}

async function contributions(
  { llm }: RunView,
  { layer, head }: HeadPlace,
  { rows, columns }: Spans,
  signal: AbortSignal,
): Promise<Cells> {
  const slices = { target: rows, source: columns };
  if (head !== "all") {
    const found = await llm.attnContributions(0, layer, { slices: { ...slices, head: only(head) }, signal });
    return numbersOf(found.heads);
  }
  return numbersOf((await llm.contributionEdges(0, layer, { slices, signal })).attention); // with threshold 0: the sum
}

function labels({ tokens }: RunView, { start, stop }: Span): string[] {
  return tokens.slice(start, stop).map((token, i) => `(${start + i})${visible(token)}`);
}
