/** The same work, asked for several times at once, done once. */

import { CancelledError, DeadlineError } from "./errors.js";
import type { Scope } from "./scope.js";

/** Work under way, by key. */
export class SingleFlight<K, V> {
  readonly #underWay = new Map<K, Promise<V>>();

  /**
   * What the work for a key gives. Whoever comes first does it; if that one is cancelled or late, another one of
   * those who wait begins again.
   */
  async do(key: K, scope: Scope, work: () => Promise<V>): Promise<V> {
    for (;;) {
      const underWay = this.#underWay.get(key);
      if (underWay === undefined) {
        return this.#begin(key, work);
      }
      const [outcome] = await scope.race(Promise.allSettled([underWay]));
      if (outcome.status === "fulfilled") {
        return outcome.value;
      }
      if (!(outcome.reason instanceof CancelledError || outcome.reason instanceof DeadlineError)) {
        throw outcome.reason;
      }
    }
  }

  async #begin(key: K, work: () => Promise<V>): Promise<V> {
    const begun = work();
    this.#underWay.set(key, begun);
    try {
      return await begun;
    } finally {
      this.#underWay.delete(key);
    }
  }
}
