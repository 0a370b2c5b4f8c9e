/** How far a token rose or fell since the place before: by a sign, and by a colour. */

import type { JSX } from "preact";

/**
 * Ranks are counted from 1.
 *
 * @param shown how many ranks a table has: what was not among so many before is new there.
 */
export function GainText({
  rank,
  before,
  shown,
}: {
  readonly rank: number;
  readonly before: number;
  readonly shown: number;
}): JSX.Element {
  const gain = before - rank;
  if (gain === 0) {
    return <span>=</span>;
  }
  return (
    <span class={gain > 0 ? "up" : "down"}>
      {gain > 0 ? "▲" : "▼"} {Math.abs(gain)}
      {before > shown && " new"}
    </span>
  );
}
