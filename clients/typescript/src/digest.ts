/** Digests: names of models, under which things are kept, perhaps in files. */

import { InternalError } from "./errors.js";
import { quoted } from "./legible.js";

/** @throws InternalError a server gave something else than a SHA-256 in hex. */
export function requireDigest(text: string): string {
  if (!/^[0-9a-f]{64}$/.test(text)) {
    throw new InternalError(`the server names a model by the digest ${quoted(text)}, which is not a SHA-256 in hex`);
  }
  return text;
}
