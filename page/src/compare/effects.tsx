/** What the edits did, one by one and all together. */

import type { JSX } from "preact";
import type { RunView } from "../run/run_view.js";
import { Reading } from "../shown/reading.js";
import { TokenText } from "../shown/token_text.js";
import { useRead } from "../shown/use_read.js";
import type { Pair } from "./pair.js";
import { ScrollFrame } from "./scroll_frame.js";

/** The report of each edit, in the server's words. */
export function Effects({ run, name }: { readonly run: RunView; readonly name: string }): JSX.Element {
  return (
    <section class="card effects">
      <h3>What each edit did ({name.toLowerCase()})</h3>
      <ScrollFrame name="What each edit did">
        <table>
          <thead>
            <tr>
              <th scope="col">Edit</th>
              <th scope="col">Selected numbers</th>
              <th scope="col">Changed</th>
              <th scope="col">Norm of the change</th>
              <th scope="col">Norm before</th>
              <th scope="col">Largest change</th>
            </tr>
          </thead>
          <tbody>
            {run.llm.effects().map(({ edit, selected, changed, deltaNorm, norm, maxDelta }, i) => (
              <tr key={i}>
                <th scope="row">{edit}</th>
                <td>{selected}</td>
                <td>{changed === 0 ? <strong>no effect</strong> : changed}</td>
                <td>{deltaNorm.toPrecision(4)}</td>
                <td>{norm.toPrecision(4)}</td>
                <td>{maxDelta.toPrecision(4)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </ScrollFrame>
    </section>
  );
}

/** Both runs at the last token of each. */
export function Divergence({ pair }: { readonly pair: Pair }): JSX.Element {
  const { first, second, names } = pair;
  const read = useRead((signal) => second.llm.compare(first.llm, { signal }), [first.llm.runId, second.llm.runId]);
  return (
    <section class="card divergence">
      <h3>At the last token of each</h3>
      <Reading of={read}>
        {([row]) =>
          row === undefined ? null : (
            <p>
              KL({names[1].toLowerCase()} ‖ {names[0].toLowerCase()}) <output name="kl">{row.kl.toFixed(6)}</output>{" "}
              nats. Most likely next: {names[0].toLowerCase()} <TokenText token={row.otherTopString} />,{" "}
              {names[1].toLowerCase()} <TokenText token={row.topString} />
              {row.topChanged ? " (≠)." : " (the same)."}
            </p>
          )
        }
      </Reading>
    </section>
  );
}
