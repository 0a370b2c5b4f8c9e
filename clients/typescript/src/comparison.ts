/** What two runs say of the next token, row by row. */

import { InternalError } from "./errors.js";
import type { CompareRunsResponse } from "./gen/transparent_llm/v1/service_pb.js";
import type { CallOptions } from "./options.js";
import type { Run } from "./run.js";
import { indexIn, type Tensor } from "./tensor.js";

/** Of a token's text, in characters. */
const MOST_TEXT = 1000;

/** Of one row of a run beside the same row of another, each at its last token. */
export interface RowComparison {
  /** KL(run || other) of the next token, in nats, summed in double precision: 0 where both say the same. */
  readonly kl: number;
  /** The most likely next token of the run. */
  readonly topToken: number;
  /** Its text. */
  readonly topString: string;
  /** The most likely next token of the other. */
  readonly otherTopToken: number;
  /** Its text. */
  readonly otherTopString: string;
  /** Whether they differ in the most likely token. */
  readonly topChanged: boolean;
  /** The same divergence at each position from `fromPos` to the row's last token; empty where none was asked for. */
  readonly klByPos: readonly number[];
}

/** Of `compare`. */
export interface CompareOptions extends CallOptions {
  /**
   * Rows are compared at each position from this one to their last token too, and are of the same tokens then. A negative one
   * counts from the end of the shortest row.
   */
  readonly fromPos?: number | undefined;
}

/**
 * The position that a comparison begins at.
 *
 * @throws IndexOutOfRangeError a row has no such position.
 */
export function startOf({ tokens, mask }: Run, fromPos: number): number {
  return indexIn("from_pos", Math.min(...lengthsOf(tokens, mask)), fromPos);
}

/**
 * What the rows of a run differ in, each with so many positions as it has from this one on; none of undefined.
 *
 * @throws InternalError there are more or fewer, or a number that none can be.
 */
export function comparisonsOf(
  { rows }: CompareRunsResponse,
  { tokens, mask }: Run,
  start: number | undefined,
): RowComparison[] {
  const lengths = lengthsOf(tokens, mask);
  if (rows.length !== lengths.length) {
    throw new InternalError(`the server compared ${rows.length} rows of ${lengths.length}`);
  }
  if (
    rows.some(({ klByPos }, row) => klByPos.length !== (start === undefined ? 0 : (lengths[row] as number) - start))
  ) {
    throw new InternalError("the server compared other positions than were asked for");
  }
  if (rows.some(({ kl, klByPos, topId, otherTopId }) => [kl, ...klByPos, topId, otherTopId].some((each) => each < 0))) {
    throw new InternalError("the server sent a divergence below 0, or a negative token id");
  }
  return rows.map(({ kl, topId, topString, otherTopId, otherTopString, klByPos }) => ({
    kl,
    topToken: topId,
    topString: topString.slice(0, MOST_TEXT),
    otherTopToken: otherTopId,
    otherTopString: otherTopString.slice(0, MOST_TEXT),
    topChanged: topId !== otherTopId,
    klByPos: [...klByPos],
  }));
}

/** Tokens of each row. */
function lengthsOf(tokens: Tensor, mask: Tensor | undefined): number[] {
  const [batch, nPos] = tokens.shape as [number, number];
  return Array.from(
    { length: batch },
    (_, row) => mask?.bytes.subarray(row * nPos, (row + 1) * nPos).reduce((sum, isToken) => sum + isToken, 0) ?? nPos,
  );
}
