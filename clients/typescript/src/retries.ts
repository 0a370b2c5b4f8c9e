/** How often, and how long already, a call had to be made or taken up again without any progress. */

import type { Absence } from "./absence.js";
import type { Assembler } from "./assembler.js";
import { CancelledError, DeadlineError, type TransparentLlmError, UnavailableError } from "./errors.js";
import type { ClientConfig } from "./options.js";
import type { Scope } from "./scope.js";

/** Of a call to a server that has never answered, without a pause: it is not waited for. */
const TRIES_UNREACHED = 5;
const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 1000;

/** The reason of a server that has no room for a call now. */
const BUSY = "BUSY";

/**
 * Reasons of a server that goes or comes, or cancels what it has not begun: where one was reached before, it or
 * another one will answer.
 */
const PASSING: ReadonlySet<string> = new Set(["UNAVAILABLE", "DRAINING", "LOADING", "CANCELLED"]);

/** The retries of one call. */
export class Retries {
  readonly #scope: Scope;
  readonly #config: Pick<ClientConfig, "target" | "reconnectS">;
  readonly #absence: Absence;
  readonly #wasReached: boolean;
  #inARow = 0;
  #last = Number.NEGATIVE_INFINITY;
  #loss: TransparentLlmError | undefined;

  /** @param wasReached whether a server had answered before this call. */
  constructor(
    scope: Scope,
    config: Pick<ClientConfig, "target" | "reconnectS">,
    absence: Absence,
    wasReached: boolean,
  ) {
    this.#scope = scope;
    this.#config = config;
    this.#absence = absence;
    this.#wasReached = wasReached;
  }

  /**
   * Wait a little after a failure, so that the call can be made again.
   *
   * @param stream what came of it, if it is a stream.
   * @param hasProgress whether anything came since the last one.
   * @throws TransparentLlmError the failure itself, if it cannot be mended, or could not in time.
   */
  async backoff(failure: TransparentLlmError, stream?: Assembler, hasProgress = false): Promise<void> {
    if (this.#scope.isCancelled) {
      throw failure;
    }
    if (loadsAModel(failure) || failure.reason === BUSY) {
      await this.#waitAsTold(failure);
      return;
    }
    const now = performance.now();
    if (hasProgress) {
      this.#inARow = 0;
      this.#absence.end();
    }
    this.#inARow += hasProgress ? 0 : 1;
    if (failure instanceof DeadlineError && this.#loss !== undefined) {
      throw this.#stayedAway(stream);
    }
    const wasReached = this.#wasReached || stream?.hasBegun === true;
    if (!wasReached && failure.reason === "UNAVAILABLE" && this.#triesAgainAtOnce()) {
      return;
    }
    if (!this.#isPassing(failure, wasReached, stream)) {
      throw failure;
    }
    this.#loss ??= failure;
    if (now - this.#absence.since(now) > this.#config.reconnectS * 1000) {
      throw this.#lost(failure);
    }
    await this.#pause(stream, this.#inARow > 0 ? this.#pauseMs() : this.#restMs(now));
  }

  #triesAgainAtOnce(): boolean {
    return this.#inARow < TRIES_UNREACHED && this.#scope.remainingMs > 0;
  }

  #isPassing(failure: TransparentLlmError, wasReached: boolean, stream: Assembler | undefined): boolean {
    if (PASSING.has(failure.reason) && wasReached) {
      return true;
    }
    const isLoss = failure instanceof UnavailableError || failure instanceof CancelledError;
    return isLoss && (stream?.hasBegun === true || this.#loss !== undefined);
  }

  #pauseMs(): number {
    return Math.min(FIRST_PAUSE_MS * 2 ** (this.#inARow - 1), LONGEST_PAUSE_MS);
  }

  /** After some progress there is no pause, unless the failure before was only just, as of a server that sends crumbs. */
  #restMs(now: number): number {
    const pauseMs = Math.max(0, this.#last + FIRST_PAUSE_MS - now);
    this.#last = now + pauseMs;
    return pauseMs;
  }

  async #pause(stream: Assembler | undefined, pauseMs: number): Promise<void> {
    if (pauseMs >= this.#scope.remainingMs) {
      throw this.#stayedAway(stream);
    }
    await this.#scope.sleep(pauseMs);
  }

  /**
   * As long as the server says, but never at once; its own words, if the call's time does not suffice. For room up to as
   * long again, so that those whom it sent away do not come back together.
   */
  async #waitAsTold(failure: TransparentLlmError): Promise<void> {
    this.#absence.end();
    const toldMs = failure.retryAfterS ? Math.max(failure.retryAfterS * 1000, FIRST_PAUSE_MS) : LONGEST_PAUSE_MS;
    const pauseMs = failure.reason === BUSY ? toldMs * (1 + Math.random()) : toldMs;
    if (pauseMs >= this.#scope.remainingMs) {
      throw failure;
    }
    await this.#scope.sleep(pauseMs);
  }

  /** What is thrown when it was waited for in vain. */
  #lost(failure: TransparentLlmError): TransparentLlmError {
    const { target, reconnectS } = this.#config;
    const kind = failure.constructor as typeof TransparentLlmError;
    const message = `${target} was lost and did not come back within ${reconnectS} s (reconnectS): ${failure.message}`;
    return new kind(message, { reason: failure.reason, metadata: failure.metadata });
  }

  #stayedAway(stream: Assembler | undefined): DeadlineError {
    const [received, total] = [stream?.received ?? 0, stream?.totalBytes ?? 0];
    const place = total > 0 ? ` at byte ${received} of ${total}` : "";
    const within = `did not come back within ${this.#scope.timeoutMs} ms`;
    return new DeadlineError(`${this.#config.target} was lost${place} and ${within}: ${this.#loss?.message ?? ""}`, {
      metadata: { received: String(received), total_bytes: String(total) },
    });
  }
}

/** Whether the call began to load the model that it is for, or found it loading; not: whether the server starts. */
function loadsAModel(failure: TransparentLlmError): boolean {
  return failure.reason === "LOADING" && "model" in failure.metadata;
}
