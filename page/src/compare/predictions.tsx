/** The next token as both runs predict it at one position. */

import type { JSX } from "preact";
import type { RunView } from "../run/run_view.js";
import { Reading } from "../shown/reading.js";
import { TokenText } from "../shown/token_text.js";
import { useRead } from "../shown/use_read.js";
import { changeWords, type Pair } from "./pair.js";
import { ScrollFrame } from "./scroll_frame.js";

const TOP = 10;

/** A token with its probability in both runs. */
interface Predicted {
  readonly token: string;
  readonly first: number;
  readonly second: number;
  readonly ranks: readonly [first: number, second: number];
}

export function Predictions({
  pair,
  at,
}: {
  readonly pair: Pair;
  /** The position in the first run and in the second. */
  readonly at: readonly [first: number, second: number];
}): JSX.Element {
  const { first, second, names } = pair;
  const read = useRead((signal) => predicted(pair, at, signal), [first.llm.runId, second.llm.runId, ...at]);
  return (
    <section class="card predictions">
      <h3>
        The next token after <Place run={first} pos={at[0]} />
        {(at[0] !== at[1] || first.tokenIds[at[0]] !== second.tokenIds[at[1]]) && (
          <>
            {" "}
            and <Place run={second} pos={at[1]} />
          </>
        )}
      </h3>
      <Reading of={read}>
        {(tokens) => (
          <ScrollFrame name="Next tokens of both">
            <table>
              <thead>
                <tr>
                  <th scope="col">Token</th>
                  <th scope="col">{names[0]}</th>
                  <th scope="col">{names[1]}</th>
                  <th scope="col">Change</th>
                </tr>
              </thead>
              <tbody>
                {tokens.map(({ token, first: p, second: q, ranks }, i) => (
                  <tr key={i}>
                    <th scope="row">
                      <TokenText token={token} />
                    </th>
                    <Probability value={p} rank={ranks[0]} />
                    <Probability value={q} rank={ranks[1]} />
                    <td>{changeWords(q - p)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </ScrollFrame>
        )}
      </Reading>
    </section>
  );
}

function Place({ run, pos }: { readonly run: RunView; readonly pos: number }): JSX.Element {
  return (
    <>
      “<TokenText token={run.tokens[pos] ?? ""} />” ({pos})
    </>
  );
}

function Probability({ value, rank }: { readonly value: number; readonly rank: number }): JSX.Element {
  return (
    <td class={rank === 0 ? "is-top" : ""}>
      {value.toFixed(4)} <span class="quiet">#{rank + 1}</span>
    </td>
  );
}

/** The top tokens of either, those of the first run first. */
async function predicted(
  { first, second }: Pair,
  [pos, otherPos]: readonly [number, number],
  signal: AbortSignal,
): Promise<Predicted[]> {
  const [own, others] = await Promise.all([topIds(first, pos, signal), topIds(second, otherPos, signal)]);
  const ids = [...new Set([...own, ...others])];
  const [tokens, p, q] = await Promise.all([
    first.llm.tokensToStrings(ids, { signal }),
    probabilities(first, pos, ids, signal),
    probabilities(second, otherPos, ids, signal),
  ]);
  return tokens.map((token, i) => {
    const [a, b] = [p[i] as Placed, q[i] as Placed];
    return { token, first: a.probability, second: b.probability, ranks: [a.rank, b.rank] };
  });
}

async function topIds({ llm, model }: RunView, pos: number, signal: AbortSignal): Promise<number[]> {
  const k = Math.min(TOP, model.dVocab);
  const { topIds } = await llm.layerLens(0, model.nLayers - 1, { positions: [pos], k, signal });
  return Array.from(topIds.toFloat64());
}

interface Placed {
  readonly probability: number;
  readonly rank: number;
}

async function probabilities(
  { llm, model }: RunView,
  pos: number,
  tokenIds: readonly number[],
  signal: AbortSignal,
): Promise<Placed[]> {
  const lens = await llm.layerLens(0, model.nLayers - 1, { positions: [pos], tokenIds, signal });
  const [logits, ranks] = [lens.targetLogits.toFloat32(), lens.targetRanks.toFloat64()];
  const all = lens.logsumexp.toFloat32()[0] as number;
  return tokenIds.map((_, i) => ({ probability: Math.exp((logits[i] as number) - all), rank: ranks[i] as number }));
}
