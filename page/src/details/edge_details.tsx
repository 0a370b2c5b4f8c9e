/** What flowed along an edge into attention: through which head, and what each head looks at. */

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { EditButtons } from "../compare/edit_buttons.js";
import { type EdgeEnds, nodeWords, selectionName } from "../graph/selection.js";
import type { RunView } from "../run/run_view.js";
import { Reading } from "../shown/reading.js";
import { visible } from "../shown/token_text.js";
import { useRead } from "../shown/use_read.js";
import { type Choice, Choices } from "./choices.js";
import { AttentionMap, ContributionMap, type Head, type HeadPlace, headWords } from "./head_maps.js";
import { numbersOf, only } from "./numbers.js";
import { SpokenByVector } from "./spoken_for.js";

interface EdgeShares {
  readonly heads: readonly number[];
  /** Of what was there before; undefined between two positions. */
  readonly residual: number | undefined;
}

/** Of an edge whose target is the stream after attention. */
export function EdgeDetails({ run, ends }: { readonly run: RunView; readonly ends: EdgeEnds }): JSX.Element {
  const shares = useRead((signal) => sharesOf(run, ends, signal), [run, selectionName({ what: "edge", ends })]);
  const [from, to] = [nodeWords(ends.source, run.tokens, visible), nodeWords(ends.target, run.tokens, visible)];
  return (
    <>
      <h2>
        Attention: {from} → {to}
      </h2>
      <Reading of={shares}>{(found) => <Heads run={run} ends={ends} shares={found} />}</Reading>
    </>
  );
}

/** All heads, the strongest of which is looked at first. */
function Heads({
  run,
  ends,
  shares,
}: {
  readonly run: RunView;
  readonly ends: EdgeEnds;
  readonly shares: EdgeShares;
}): JSX.Element {
  const { heads, residual } = shares;
  const [head, setHead] = useState<Head>(heads.indexOf(Math.max(...heads)));
  const sum = heads.reduce((all, share) => all + share, 0);
  const choices: readonly Choice<Head>[] = [
    { value: "all", label: "All", note: sum.toFixed(4) },
    ...heads.map((share, i) => ({ value: i, label: `Head ${i}`, share })),
  ];
  const { layer, pos: target } = ends.target;
  const place: HeadPlace = { layer, head, target, source: ends.source.pos };
  return (
    <>
      <p class="quiet">
        Contribution of each head along this edge, before any threshold.
        {residual !== undefined && (
          <>
            {" "}
            The stream that was there before gave <span data-residual>{residual.toFixed(4)}</span>.
          </>
        )}
      </p>
      <Choices label="Heads" choices={choices} chosen={head} onChoose={setHead} />
      <AttentionMap run={run} place={place} />
      <ContributionMap run={run} place={place} />
      <SpokenByVector
        run={run}
        title={`Promoted by ${headWords(place)} at “${visible(run.tokens[target] ?? "")}” (${target})`}
        name={`${layer} ${target} ${head}`}
        read={(signal) => run.llm.attentionOutput(0, layer, target, head === "all" ? null : head, { signal })}
      />
      <EditButtons run={run} selection={{ what: "edge", ends }} {...(head === "all" ? {} : { head })} />
    </>
  );
}

async function sharesOf(run: RunView, { source, target }: EdgeEnds, signal: AbortSignal): Promise<EdgeShares> {
  const slices = { target: only(target.pos), source: only(source.pos) };
  const { heads, residual } = await run.llm.attnContributions(0, target.layer, { slices, signal });
  return { heads: numbersOf(heads), residual: source.pos === target.pos ? residual.at(0) : undefined };
}
