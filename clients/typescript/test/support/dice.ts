/** Chance that can be repeated: the same seed gives the same throws. */
export class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  /** A whole number from 0 to before the bound. */
  below(bound: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * bound);
  }

  /** Yes or no. */
  chance(): boolean {
    return this.below(2) === 1;
  }

  oneOf<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)] as T;
  }

  /** So many at most. */
  list<T>(most: number, each: () => T): T[] {
    return Array.from({ length: this.below(most + 1) }, each);
  }

  bytes(length: number): Uint8Array<ArrayBuffer> {
    return Uint8Array.from({ length }, () => this.below(256));
  }

  /** Bytes as they are, or with some that are changed, or with an end that is missing. */
  damaged(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
    const kept = this.below(4) === 0 ? bytes.slice(0, this.below(bytes.length + 1)) : bytes.slice();
    for (let changes = this.below(3) - 1; changes > 0 && kept.length > 0; changes--) {
      kept[this.below(kept.length)] = this.below(256);
    }
    return kept;
  }
}
