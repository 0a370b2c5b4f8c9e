/** What an edit did in a run. */

import { InternalError } from "../errors.js";
import type { EditEffect as WireEffect } from "../gen/transparent_llm/v1/interventions_pb.js";
import { legible } from "../legible.js";

/** Of an edit's words, in characters. */
const MOST_WORDS = 1000;

/** Of one edit of a run. One that changed nothing is no error, and this is where it shows. */
export interface EditEffect {
  /** The edit in words. */
  readonly edit: string;
  /** Elements that it had before it. */
  readonly selected: number;
  /** Elements that are other numbers afterwards. */
  readonly changed: number;
  /** L2 norm of all that was added. */
  readonly deltaNorm: number;
  /** L2 norm of the selected elements before. */
  readonly norm: number;
  /** The largest change of one element. */
  readonly maxDelta: number;
}

/**
 * What so many edits did.
 *
 * @throws InternalError there are more or fewer: the server has made other edits than were sent.
 */
export function effectsOf(effects: readonly WireEffect[], count: number): readonly EditEffect[] {
  if (effects.length !== count) {
    throw new InternalError(`the server sent effects of ${effects.length} edits for ${count} that were sent`);
  }
  return effects.map(({ edit, selected, changed, deltaNorm, norm, maxDelta }) => ({
    edit: legible(edit, MOST_WORDS),
    ...{ selected: Number(selected), changed: Number(changed), deltaNorm, norm, maxDelta },
  }));
}
