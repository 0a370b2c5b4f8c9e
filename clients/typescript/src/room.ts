/** The most that one value may take in this client. */

import { TooLargeError } from "./errors.js";
import { legible } from "./legible.js";

const READ_LESS = "read a part of it, as in { slices: { pos: { start: -1 } } }, or in a smaller dtype";

/**
 * Refuse a value that its reader has no room for.
 *
 * @throws TooLargeError it takes more than `maxBytes`.
 */
export function requireRoom(name: string, nbytes: number | bigint, maxBytes: number | undefined): void {
  if (maxBytes !== undefined && nbytes > maxBytes) {
    throw new TooLargeError(
      `${legible(name, 128)} takes ${nbytes} bytes, but this client accepts at most maxBytes=${maxBytes}: ` +
        `${READ_LESS}, or raise maxBytes`,
      { metadata: { needed: String(nbytes), allowed: String(maxBytes) } },
    );
  }
}

/**
 * Memory for a value that is made here.
 *
 * @throws TooLargeError there is not so much.
 */
export function memoryFor(name: string, nbytes: number): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(nbytes);
  } catch (error) {
    if (error instanceof RangeError) {
      throw new TooLargeError(`no memory here for the ${nbytes} bytes of ${name}: ${READ_LESS}`, {
        metadata: { needed: String(nbytes) },
      });
    }
    throw error;
  }
}
