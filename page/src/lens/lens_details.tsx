/** One cell of the lens in numbers. */

import type { JSX } from "preact";
import type { RunView } from "../run/run_view.js";
import { TokenText, visible } from "../shown/token_text.js";
import type { LensPlace } from "./lens_grid.js";
import type { LensCell } from "./lens_layer.js";

export function LensDetails({
  run,
  place,
  cell,
}: {
  readonly run: RunView;
  readonly place: LensPlace;
  readonly cell: LensCell;
}): JSX.Element {
  return (
    <section class="card lens-details" data-place={`${place.layer},${place.position}`}>
      <h2>
        Layer {place.layer}, position {place.position} (<TokenText token={run.tokens[place.position] as string} />)
      </h2>
      <TopTokens cell={cell} />
      <dl>
        <dt>Entropy</dt>
        <dd>
          <span data-value="entropy">{cell.entropy.toFixed(4)}</span> nats
        </dd>
        <dt>KL to the output</dt>
        <dd>
          <span data-value="kl">{cell.kl.toFixed(4)}</span> nats
        </dd>
        <dt>Chosen token</dt>
        <dd>
          {cell.chosen === undefined ? (
            "none here"
          ) : (
            <>
              <TokenText token={cell.chosen.token} />: rank <span data-value="rank">{cell.chosen.rank + 1}</span>,
              probability <span data-value="probability">{cell.chosen.probability.toFixed(4)}</span>
            </>
          )}
        </dd>
      </dl>
    </section>
  );
}

function TopTokens({ cell }: { readonly cell: LensCell }): JSX.Element {
  return (
    <table>
      <thead>
        <tr>
          <th scope="col">Token</th>
          <th scope="col">Probability</th>
          <th scope="col">Logit</th>
        </tr>
      </thead>
      <tbody>
        {cell.top.map(({ id, token, probability, logit }) => (
          <tr key={id} data-token={id}>
            <th scope="row">
              <TokenText token={token} />
            </th>
            <td>{probability.toFixed(4)}</td>
            <td>{logit.toFixed(4)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** A cell in one sentence, for those who hear it. */
export function cellWords(run: RunView, { layer, position }: LensPlace, cell: LensCell): string {
  const [top] = cell.top;
  const of = `Layer ${layer}, position ${position} “${visible(run.tokens[position] as string)}”`;
  const best = `“${visible(top?.token ?? "")}” ${(top?.probability ?? 0).toFixed(4)}`;
  const values = `entropy ${cell.entropy.toFixed(4)}, KL ${cell.kl.toFixed(4)} nats`;
  const chosen = cell.chosen === undefined ? "" : `; “${visible(cell.chosen.token)}” has rank ${cell.chosen.rank + 1}`;
  return `${of}: ${best}; ${values}${chosen}.`;
}
