/** A part of a row that is small enough to be drawn. */

/** Positions from `start` to before `stop`. */
export interface Span {
  readonly start: number;
  readonly stop: number;
}

const MOST = 256;

/** At most so many positions around one; all of a row that has no more. */
export function spanAround(pos: number, nTokens: number, most = MOST): Span {
  const start = Math.max(0, Math.min(pos - Math.floor(most / 2), nTokens - most));
  return { start, stop: Math.min(nTokens, start + most) };
}
