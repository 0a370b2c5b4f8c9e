/** Since when a client's server is lost: one clock for all of its calls. */

/** A loss that no call has met for so long says nothing any more of the server. */
const FORGOTTEN_AFTER_MS = 60_000;

/** Calls that fail side by side, or one after the other, wait for the server once, and not each anew. */
export class Absence {
  #first: number | undefined;
  #last = 0;

  /** A call has found the server lost: when the first one did, after which none was answered. */
  since(now: number): number {
    if (this.#first === undefined || now - this.#last > FORGOTTEN_AFTER_MS) {
      this.#first = now;
    }
    this.#last = now;
    return this.#first;
  }

  /** The server has answered. */
  end(): void {
    this.#first = undefined;
  }
}
