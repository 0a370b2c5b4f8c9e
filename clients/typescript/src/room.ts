/** The most that one value may take in this client. */

import { TooLargeError } from "./errors.js";

/**
 * Refuse a value that its reader has no room for.
 *
 * @throws TooLargeError it takes more than `maxBytes`.
 */
export function requireRoom(name: string, nbytes: number | bigint, maxBytes: number | undefined): void {
  if (maxBytes !== undefined && nbytes > maxBytes) {
    throw new TooLargeError(
      `${name} takes ${nbytes} bytes, this client takes at most maxBytes=${maxBytes}: read a part of it, as in ` +
        "{ slices: { pos: { start: -1 } } }, in a smaller dtype, or raise maxBytes",
      { metadata: { needed: String(nbytes), allowed: String(maxBytes) } },
    );
  }
}
