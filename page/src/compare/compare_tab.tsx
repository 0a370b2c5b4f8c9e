/** Two runs side by side: what is shown, and another sentence or the same tokens with edits. */

import type { JSX } from "preact";
import { usePage } from "../page_state.js";
import type { RunView } from "../run/run_view.js";
import { ContinuationsCard } from "./continuations_card.js";
import { EditForm } from "./edit_form.js";
import { EditList } from "./edit_list.js";
import { Divergence, Effects } from "./effects.js";
import { GraphDifference } from "./graph_difference_view.js";
import { LensDifferenceView } from "./lens_difference_view.js";
import { Pair } from "./pair.js";
import { Predictions } from "./predictions.js";
import { SentenceForm } from "./sentence_form.js";
import { TokenRows } from "./token_rows.js";
import "./compare.css";

export function CompareTab({ run }: { readonly run: RunView }): JSX.Element {
  const { other, alignedBy } = usePage();
  const second = other.value;
  return (
    <div class="compare">
      <div class="compare-inputs">
        <section class="card">
          <h2>With another sentence</h2>
          <SentenceForm />
        </section>
        <section class="card">
          <h2>With edits of this run</h2>
          <EditForm run={run} />
          <EditList run={run} />
        </section>
      </div>
      <ContinuationsCard run={run} />
      {second === undefined ? (
        <p class="placeholder">Nothing to compare with yet: run another sentence, or add edits and run them.</p>
      ) : (
        <Comparison key={`${second.llm.runId}-${alignedBy.value}`} pair={new Pair(run, second, alignedBy.value)} />
      )}
    </div>
  );
}

function Comparison({ pair }: { readonly pair: Pair }): JSX.Element {
  const { start } = usePage();
  const { first, second, alignment } = pair;
  const pos = start.value < 0 ? first.nTokens + start.value : start.value;
  const other = alignment.secondOf(pos);
  return (
    <section class="comparison" aria-label="Comparison" data-run={second.llm.runId}>
      <TokenRows pair={pair} pos={pos} />
      {[first, second].map(
        (run, i) => run.edits.length > 0 && <Effects key={i} run={run} name={pair.names[i] as string} />,
      )}
      <Divergence pair={pair} />
      {other === undefined ? (
        <p class="placeholder">
          Position {pos} has no partner in the other run. Choose another one, or lay the rows on each other otherwise.
        </p>
      ) : (
        <>
          <Predictions pair={pair} at={[pos, other]} />
          <GraphDifference pair={pair} at={[pos, other]} />
        </>
      )}
      <LensDifferenceView pair={pair} />
    </section>
  );
}
