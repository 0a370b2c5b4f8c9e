/** The memory of the machine under Node.js. */

import { totalmem } from "node:os";

/** Half of what there is, or of what the container may take if that is less, in bytes. */
export function halfOfMemory(): number {
  const allowed = process.constrainedMemory?.() || Number.POSITIVE_INFINITY; // 0 or undefined where it is not known
  return Math.floor(Math.min(totalmem(), allowed) / 2);
}
