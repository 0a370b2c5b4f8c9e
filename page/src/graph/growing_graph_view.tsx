/** A graph that grows by a column with each new token. */

import type { JSX } from "preact";
import { useMemo } from "preact/hooks";
import type { NextToken } from "transparent-llm/web";
import { usePage } from "../page_state.js";
import { Problem } from "../shown/advice.js";
import { TokenText } from "../shown/token_text.js";
import { GraphControls } from "./graph_controls.js";
import { GraphView } from "./graph_view.js";
import { type Columns, type GrowingGraph, pathsOf } from "./growing_graph.js";

export function GrowingGraphView({ growing }: { readonly growing: GrowingGraph }): JSX.Element {
  const columns = growing.columns.value;
  const error = growing.error.value;
  return (
    <section class="growing-graph" aria-label="The graph as it grows" data-columns={columns?.tokens.length ?? 0}>
      <GraphControls />
      {error !== undefined && <Problem error={error} />}
      {columns === undefined ? (
        error === undefined && <p class="quiet">Reading the sentence …</p>
      ) : (
        <Drawn columns={columns} written={growing.written.value} />
      )}
    </section>
  );
}

function Drawn({
  columns,
  written,
}: {
  readonly columns: Columns;
  readonly written: readonly NextToken[];
}): JSX.Element {
  const start = usePage().start.value;
  const graph = useMemo(() => pathsOf(columns, start), [columns, start]);
  const { tokens, layers } = columns;
  return (
    <>
      <GraphView tokens={tokens} nLayers={layers.length} graph={graph} isOpenable={false} />
      <p>
        {tokens.length} columns, the last is “<TokenText token={tokens.at(-1) ?? ""} />
        ”. Written so far: <bdi>“{written.map(({ text }) => text).join("")}”</bdi>
      </p>
    </>
  );
}
