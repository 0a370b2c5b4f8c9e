/** Edits that are being put together. */

import { InvalidRequestError } from "transparent-llm/web";
import type { PageState } from "../page_state.js";
import { type EditSpec, isPatch, MOST_EDITS } from "../recipe/recipe.js";

const MOST_INDICES = 4096;
const MOST_INDEX = 2 ** 31 - 1;

/**
 * Put edits behind those that are there.
 *
 * @throws InvalidRequestError they would be too many for a link.
 */
export function addToDraft(page: PageState, ...specs: readonly EditSpec[]): void {
  const draft = [...page.draft.value, ...specs];
  if (draft.length > MOST_EDITS) {
    throw new InvalidRequestError(`${draft.length} edits, at most ${MOST_EDITS} can be made here: remove some first`);
  }
  page.draft.value = draft;
}

/** Whether all edits have what they need: those that patch need another sentence. */
export function canRun(draft: readonly EditSpec[], hasSource: boolean): boolean {
  return draft.length > 0 && (hasSource || !draft.some(isPatch));
}

/**
 * Indices as people type them: with commas or spaces between.
 *
 * @throws InvalidRequestError there are none, too many, or something that is no index.
 */
export function indicesOf(name: string, text: string): number[] {
  const words = text.split(/[\s,]+/).filter((word) => word !== "");
  const wrong = words.find((word) => !/^\d+$/.test(word) || Number(word) > MOST_INDEX);
  if (words.length === 0 || words.length > MOST_INDICES || wrong !== undefined) {
    const got = wrong === undefined ? `${words.length} of them` : `“${wrong.slice(0, 40)}”`;
    throw new InvalidRequestError(`${name}: write 1 to ${MOST_INDICES} indices such as 3, 4, 17; got ${got}`);
  }
  return words.map(Number);
}
