/** The tokens of both runs, those below each other that are compared. A click chooses a position. */

import type { JSX } from "preact";
import { usePage } from "../page_state.js";
import { TokenText } from "../shown/token_text.js";
import type { AlignedBy, Pair } from "./pair.js";
import { ScrollFrame } from "./scroll_frame.js";

export function TokenRows({ pair, pos }: { readonly pair: Pair; readonly pos: number }): JSX.Element {
  const page = usePage();
  const { first, second, alignment, names } = pair;
  const [ahead, aheadOfSecond] = alignment.offsets;
  const columns = Math.max(first.nTokens, second.nTokens);
  const shift = Math.max(ahead, aheadOfSecond);
  const each = Array.from({ length: columns }, (_, column) => column);
  const other = alignment.secondOf(pos);
  return (
    <>
      {!pair.isOfOneLength && <Lengths pair={pair} />}
      <div class="token-rows">
        <ScrollFrame name="Tokens of both">
          <table>
            <tbody>
              <tr>
                <th scope="row">{names[0]}</th>
                {each.map((column) => {
                  const at = column - shift + ahead;
                  const token = first.tokens[at];
                  return (
                    <td key={column} data-in-sight={at === pos ? "" : undefined}>
                      {token !== undefined && (
                        <button
                          type="button"
                          aria-pressed={at === pos}
                          aria-label={`Position ${at}: ${token}`}
                          onClick={() => {
                            page.start.value = at;
                          }}
                        >
                          <TokenText token={token} />
                        </button>
                      )}
                    </td>
                  );
                })}
              </tr>
              <tr>
                <th scope="row">{names[1]}</th>
                {each.map((column) => {
                  const at = column - shift + aheadOfSecond;
                  const token = second.tokens[at];
                  const partner = first.tokenIds[column - shift + ahead];
                  return (
                    <td key={column} class={at === other ? "is-compared" : ""}>
                      {token !== undefined && <TokenText token={token} />}
                      {token !== undefined && second.tokenIds[at] !== partner && <span title="Another token"> ≠</span>}
                    </td>
                  );
                })}
              </tr>
            </tbody>
          </table>
        </ScrollFrame>
      </div>
    </>
  );
}

function Lengths({ pair }: { readonly pair: Pair }): JSX.Element {
  const { alignedBy } = usePage();
  const { first, second, alignment } = pair;
  return (
    <p>
      {first.nTokens} and {second.nTokens} tokens: {alignment.count} of them are compared, the others have no partner.{" "}
      <label>
        Lay on each other{" "}
        <select
          name="aligned-by"
          value={pair.by}
          onChange={(event) => {
            alignedBy.value = event.currentTarget.value as AlignedBy;
          }}
        >
          <option value="last">the last tokens</option>
          <option value="first">the first tokens</option>
        </select>
      </label>
    </p>
  );
}
