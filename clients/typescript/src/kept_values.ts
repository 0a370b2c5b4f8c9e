/** Values of current runs that a client keeps, so that asking twice sends nothing twice. */

import type { Arrived } from "./reads.js";
import type { Run } from "./run.js";
import { Tensor } from "./tensor.js";

/** The part of the limit that one value may take: a larger one would push out everything else. */
const LARGEST_PART = 4;

interface Kept {
  readonly run: Run;
  readonly arrived: Arrived;
  readonly bytes: number;
}

/** Of a run whose values are kept. */
interface Held {
  /** By which keys tell runs apart. */
  readonly number: number;
  /** Objects whose current run it is. */
  holders: number;
}

/**
 * What came for reads, within a limit in bytes; the least recently used go first. Shared by a client and its copies.
 *
 * Nobody outside has the memory of what is kept: whoever asks is given a copy, or what is made of it. So what a caller
 * writes into an answer is never read again.
 */
export class KeptValues {
  readonly #maxBytes: number;
  readonly #held = new Map<Run, Held>();
  /** Least recently used first. */
  readonly #kept = new Map<string, Kept>();
  #bytes = 0;
  #runs = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Whether anything is kept at all. */
  get isOn(): boolean {
    return this.#maxBytes > 0;
  }

  /** A run is the current one of an object: from now on its values are kept. */
  hold(run: Run): void {
    const held = this.#held.get(run) ?? { number: this.#runs++, holders: 0 };
    held.holders++;
    this.#held.set(run, held);
  }

  /** It is not any more. Those of a run that nobody has are forgotten. */
  leave(run: Run): void {
    const held = this.#held.get(run);
    if (held !== undefined && --held.holders === 0) {
      this.#held.delete(run);
      for (const [key, kept] of this.#kept) {
        if (kept.run === run) {
          this.#remove(key, kept);
        }
      }
    }
  }

  /** What is kept under the first of these keys that has something. Nobody may write to it. */
  find(run: Run, keys: readonly string[]): Arrived | undefined {
    const held = this.#held.get(run);
    for (const key of held === undefined ? [] : keys.map((each) => `${held.number} ${each}`)) {
      const kept = this.#kept.get(key);
      if (kept !== undefined) {
        this.#kept.delete(key);
        this.#kept.set(key, kept);
        return kept.arrived;
      }
    }
    return undefined;
  }

  /** Keep what came, if it is not too large and its run is still someone's; whether it is kept. */
  put(run: Run, key: string, arrived: Arrived): boolean {
    const held = this.#held.get(run);
    const bytes = [...arrived.values()].reduce((sum, tensor) => sum + tensor.bytes.byteLength, 0);
    if (held === undefined || bytes === 0 || bytes > this.#maxBytes / LARGEST_PART) {
      return false;
    }
    const full = `${held.number} ${key}`;
    const before = this.#kept.get(full);
    if (before !== undefined) {
      this.#remove(full, before);
    }
    this.#kept.set(full, { run, arrived, bytes });
    this.#bytes += bytes;
    for (const [oldest, kept] of this.#kept) {
      if (this.#bytes <= this.#maxBytes) {
        break;
      }
      this.#remove(oldest, kept);
    }
    return true;
  }

  /** Forget all of it. */
  clear(): void {
    this.#kept.clear();
    this.#bytes = 0;
  }

  #remove(key: string, { bytes }: Kept): void {
    this.#kept.delete(key);
    this.#bytes -= bytes;
  }
}

/** The same in memory of its own. */
export function copied(arrived: Arrived): Arrived {
  const copies = [...arrived].map(([name, { dtype, shape, dims, bytes }]): [string, Tensor] => [
    name,
    new Tensor({ dtype, shape, dims, bytes: bytes.slice() }),
  ]);
  return new Map(copies);
}
