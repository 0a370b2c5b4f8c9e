/** What a head took from each token for a logit, or against it. */

import type { JSX } from "preact";
import type { RunView } from "../run/run_view.js";
import { Reading } from "../shown/reading.js";
import { TermTable } from "../shown/signed.js";
import { TokenText } from "../shown/token_text.js";
import { useRead } from "../shown/use_read.js";
import type { LogitTarget } from "./logit_target.js";

export function HeadSources({
  run,
  target,
  layer,
  head,
  term,
}: {
  readonly run: RunView;
  readonly target: LogitTarget;
  readonly layer: number;
  readonly head: number;
  /** Of the whole head. */
  readonly term: number;
}): JSX.Element {
  const { position, token, minusToken } = target;
  const read = useRead(
    async (signal) => {
      const slices = { head: { start: head, stop: head + 1 } };
      const sources = await run.llm.sourceAttribution(0, layer, position, token, { minusToken, slices, signal });
      return { values: Array.from(sources.toFloat64()).slice(0, position + 1), layer, head, term };
    },
    [run, layer, head, position, token, minusToken],
  );
  return (
    <Reading of={read}>
      {(of) => (
        <div class="part-terms" tabIndex={0} role="region" aria-label="What the head took from each token">
          <TermTable
            caption={`Layer ${of.layer}, head ${of.head}: from each token`}
            terms={of.values.map((value, source) => ({ id: `source-${source}`, name: sourceName(source), value }))}
            results={[
              { id: "source-sum", name: "Sum", value: of.values.reduce((sum, value) => sum + value, 0) },
              { id: "source-term", name: "The head's term", value: of.term },
            ]}
          />
        </div>
      )}
    </Reading>
  );

  function sourceName(source: number): JSX.Element {
    return (
      <>
        {source} <TokenText token={run.tokens[source] ?? ""} />
      </>
    );
  }
}
