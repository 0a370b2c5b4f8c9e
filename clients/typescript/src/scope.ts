/** The time that one call of the user has, and its cancellation. */

import { CancelledError, DeadlineError, InvalidRequestError } from "./errors.js";

/** The longest time that gRPC can tell a server in milliseconds: 8 digits. */
const LONGEST_TIMEOUT_MS = 99_999_999;

/**
 * A timeout that can be kept.
 *
 * @throws InvalidRequestError it is no number above 0, or more than a day.
 */
export function requireTimeout(timeoutMs: number): number {
  if (!(timeoutMs > 0 && timeoutMs <= LONGEST_TIMEOUT_MS)) {
    throw new InvalidRequestError(`timeoutMs is ${timeoutMs}: it must be above 0 and at most ${LONGEST_TIMEOUT_MS}`);
  }
  return timeoutMs;
}

/** How long work goes on without letting others have their turn. */
const BREATH_MS = 50;

/** Everything that a call does, several requests perhaps, happens within one scope. */
export class Scope {
  /** For the call as a whole. */
  readonly timeoutMs: number;
  readonly #deadline: number;
  #breathed = performance.now();
  readonly #controller = new AbortController();
  #cause: unknown;

  constructor(timeoutMs: number) {
    this.timeoutMs = requireTimeout(timeoutMs);
    this.#deadline = performance.now() + timeoutMs;
  }

  /** Aborted when the call is cancelled; not when its time is over. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  get isCancelled(): boolean {
    return this.#controller.signal.aborted;
  }

  /** @param cause why, for the error that the call then throws. The first one counts. */
  cancel(cause?: unknown): void {
    if (!this.isCancelled) {
      this.#cause = cause;
      this.#controller.abort();
    }
  }

  /** What a call raises that its own side cancelled. */
  cancelled(): CancelledError {
    return new CancelledError("the call was cancelled", { cause: this.#cause });
  }

  /** Milliseconds that are left; at 0 or below there are none. */
  get remainingMs(): number {
    return this.#deadline - performance.now();
  }

  /**
   * What the promise gives, unless the call is cancelled or its time is over before.
   *
   * @throws CancelledError, DeadlineError the promise goes on without this call.
   */
  async race<T>(promise: Promise<T>): Promise<T> {
    let stop = (): void => {};
    const over = new Promise<never>((_, reject) => {
      const cancel = (): void => reject(this.cancelled());
      const timer = setTimeout(() => reject(this.#late()), Math.max(0, this.remainingMs));
      this.signal.addEventListener("abort", cancel);
      stop = () => {
        clearTimeout(timer);
        this.signal.removeEventListener("abort", cancel);
      };
      if (this.isCancelled) {
        cancel();
      }
    });
    try {
      return await Promise.race([promise, over]);
    } finally {
      stop();
    }
  }

  /**
   * Now and then, let others have their turn during long work.
   *
   * @throws CancelledError, DeadlineError the call is cancelled, or its time is over.
   */
  breathe(): Promise<void> | undefined {
    const now = performance.now();
    if (now - this.#breathed < BREATH_MS) {
      return undefined;
    }
    this.#breathed = now;
    return this.remainingMs > 0 ? this.sleep(0) : Promise.reject(this.#late());
  }

  /** @throws CancelledError the call is cancelled meanwhile. */
  async sleep(ms: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    try {
      await this.race(
        new Promise<void>((resolve) => {
          timer = setTimeout(resolve, ms);
        }),
      );
    } finally {
      clearTimeout(timer);
    }
  }

  #late(): DeadlineError {
    return new DeadlineError(
      `the call did not finish within ${this.timeoutMs} ms; raise timeoutMs if the work is long`,
    );
  }
}
