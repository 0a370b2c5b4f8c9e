/** What two runs say of the next token, row by row. */

import { InternalError } from "./errors.js";
import type { CompareRunsResponse } from "./gen/transparent_llm/v1/service_pb.js";

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
}

/**
 * What so many rows differ in.
 *
 * @throws InternalError there are more or fewer, or a number that none can be.
 */
export function comparisonsOf({ rows }: CompareRunsResponse, count: number): RowComparison[] {
  if (rows.length !== count) {
    throw new InternalError(`the server compared ${rows.length} rows of ${count}`);
  }
  if (rows.some(({ kl, topId, otherTopId }) => kl < 0 || topId < 0 || otherTopId < 0)) {
    throw new InternalError("the server sent a divergence below 0, or a negative token id");
  }
  return rows.map(({ kl, topId, topString, otherTopId, otherTopString }) => ({
    kl,
    topToken: topId,
    topString: topString.slice(0, MOST_TEXT),
    otherTopToken: otherTopId,
    otherTopString: otherTopString.slice(0, MOST_TEXT),
    topChanged: topId !== otherTopId,
  }));
}
