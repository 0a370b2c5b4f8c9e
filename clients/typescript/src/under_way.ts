/** The calls that are under way, and what cancels them. */

import type { Scope } from "./scope.js";

/** Of one connection. */
export class UnderWay {
  readonly #scopes = new Set<Scope>();
  /** One listener for each signal, however many calls it cancels: Node.js warns of more than ten. */
  readonly #bySignal = new Map<AbortSignal, { readonly scopes: Set<Scope>; readonly cancel: () => void }>();

  /** A call begins, which the signal cancels. */
  add(scope: Scope, signal: AbortSignal | undefined): void {
    this.#scopes.add(scope);
    if (signal?.aborted) {
      scope.cancel(signal.reason);
    } else if (signal !== undefined) {
      this.#listenTo(signal).add(scope);
    }
  }

  /** A call has ended. */
  remove(scope: Scope, signal: AbortSignal | undefined): void {
    this.#scopes.delete(scope);
    const listener = signal && this.#bySignal.get(signal);
    listener?.scopes.delete(scope);
    if (listener?.scopes.size === 0) {
      signal?.removeEventListener("abort", listener.cancel);
      this.#bySignal.delete(signal as AbortSignal);
    }
  }

  cancelAll(): void {
    cancelEach(this.#scopes);
  }

  #listenTo(signal: AbortSignal): Set<Scope> {
    const known = this.#bySignal.get(signal);
    if (known !== undefined) {
      return known.scopes;
    }
    const scopes = new Set<Scope>();
    const cancel = (): void => cancelEach(scopes, signal.reason);
    signal.addEventListener("abort", cancel);
    this.#bySignal.set(signal, { scopes, cancel });
    return scopes;
  }
}

function cancelEach(scopes: Iterable<Scope>, cause?: unknown): void {
  for (const scope of [...scopes]) {
    scope.cancel(cause);
  }
}
