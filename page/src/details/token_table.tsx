/** Tokens with their scores: the farther a score is from 0, the stronger its colour; its sign stands there too. */

import type { JSX } from "preact";
import { TokenText } from "../shown/token_text.js";
import { GainText } from "./gain_text.js";

/** A token and what is known of it. */
export interface TokenRow {
  readonly id: number;
  readonly token: string;
  /** A logit, or a part of one. */
  readonly score: number;
  readonly probability?: number | undefined;
  /** Its rank where the stream came from, counted from 1. */
  readonly rankBefore?: number | undefined;
}

/**
 * A table of tokens, the first with rank 1.
 *
 * @param name which table of its card it is.
 */
export function TokenTable({
  caption,
  name,
  rows,
}: {
  readonly caption: string;
  readonly name: string;
  readonly rows: readonly TokenRow[];
}): JSX.Element {
  const most = Math.max(...rows.map(({ score }) => Math.abs(score)));
  const hasProbability = rows.some(({ probability }) => probability !== undefined);
  const hasGain = rows.some(({ rankBefore }) => rankBefore !== undefined);
  return (
    <table class="token-table" data-table={name}>
      <caption>{caption}</caption>
      <thead>
        <tr>
          <th scope="col">Rank</th>
          <th scope="col">Token</th>
          <th scope="col">Score</th>
          {hasProbability && <th scope="col">Probability</th>}
          {hasGain && <th scope="col">Gain</th>}
        </tr>
      </thead>
      <tbody>
        {rows.map(({ id, token, score, probability, rankBefore }, i) => (
          <tr key={id} data-token={id}>
            <td>{i + 1}</td>
            <th scope="row">
              <TokenText token={token} />
            </th>
            <td
              class={score < 0 ? "score negative" : "score"}
              data-score
              style={{ "--share": most > 0 ? Math.abs(score) / most : 0 }}
            >
              {score.toFixed(3)}
            </td>
            {hasProbability && <td data-probability>{probability?.toFixed(4)}</td>}
            {hasGain && (
              <td data-gain>
                {rankBefore !== undefined && <GainText rank={i + 1} before={rankBefore} shown={rows.length} />}
              </td>
            )}
          </tr>
        ))}
      </tbody>
    </table>
  );
}
