/** Numbers of edits, checked before anything is sent. */

import { InvalidRequestError } from "../errors.js";
import { quoted } from "../legible.js";
import { requireWithin } from "../parameters.js";

/** @throws InvalidRequestError no integer of 32 bits. */
export function requireInt32(name: string, given: unknown): number {
  return requireWithin(name, given, -(2 ** 31), 2 ** 31 - 1);
}

/** @throws InvalidRequestError no integer of 64 bits; a number that does not hold it exactly. */
export function requireInt64(name: string, given: unknown): bigint {
  const isInteger = typeof given === "bigint" || Number.isSafeInteger(given);
  const value = isInteger ? BigInt(given as number | bigint) : undefined;
  if (value === undefined || value !== BigInt.asIntN(64, value)) {
    throw wrong(name, "an integer, beyond 2 ** 53 a bigint, of 64 bits at most", given);
  }
  return value;
}

/** @throws InvalidRequestError no finite number. */
export function requireFinite(name: string, given: unknown): number {
  if (typeof given !== "number" || !Number.isFinite(given)) {
    throw wrong(name, "a finite number", given);
  }
  return given;
}

/**
 * Distinct integers.
 *
 * @throws InvalidRequestError none, something else, or one twice.
 */
export function requireChosen(name: string, given: unknown, words: readonly string[]): number[] {
  if (!Array.isArray(given)) {
    throw wrong(name, `${words.map((word) => `"${word}"`).join(" or ")}, or an array of integers`, given);
  }
  const found = given.map((each) => requireInt32(name, each));
  if (found.length === 0) {
    throw new InvalidRequestError(`${name} is empty, so nothing would be changed`);
  }
  if (new Set(found).size !== found.length) {
    throw new InvalidRequestError(`${name} names one twice`);
  }
  return found;
}

function wrong(name: string, wanted: string, given: unknown): InvalidRequestError {
  return new InvalidRequestError(`${name} must be ${wanted}, got ${quoted(String(given))}`, {
    metadata: { argument: name },
  });
}
