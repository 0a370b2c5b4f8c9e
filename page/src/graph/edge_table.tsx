/** The strongest edges as a table: for screen readers, and for those who want numbers. */

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { DrawnGraph } from "./drawn_graph.js";
import { edgeWords } from "./graph_words.js";
import { type EdgeEnds, nodeOf, type Selection } from "./selection.js";

const MOST = 100;

export function EdgeTable({
  drawn,
  tokens,
  onOpen,
  isChosen,
}: {
  readonly drawn: DrawnGraph;
  readonly tokens: readonly string[];
  readonly onOpen: (selection: Selection) => void;
  readonly isChosen: (selection: Selection) => boolean;
}): JSX.Element {
  const [isOpen, setIsOpen] = useState(false);
  return (
    <details class="edge-table" onToggle={(event) => setIsOpen(event.currentTarget.open)}>
      <summary>The strongest edges, as a list</summary>
      {isOpen && (
        <ol>
          {strongest(drawn).map(({ ends, weight }) => {
            const selection: Selection = { what: "edge", ends };
            const words = edgeWords(ends, weight, tokens);
            return (
              <li key={words}>
                <button type="button" aria-pressed={isChosen(selection)} onClick={() => onOpen(selection)}>
                  {words}
                </button>
              </li>
            );
          })}
        </ol>
      )}
    </details>
  );
}

function strongest(drawn: DrawnGraph): { ends: EdgeEnds; weight: number }[] {
  return [...drawn.edges]
    .sort((a, b) => b.edge.weight - a.edge.weight)
    .slice(0, MOST)
    .map(({ edge }) => ({ ends: { source: nodeOf(edge.source), target: nodeOf(edge.target) }, weight: edge.weight }));
}
