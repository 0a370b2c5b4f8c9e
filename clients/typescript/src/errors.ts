/**
 * Everything that goes wrong on purpose, by the names that the clients of all languages share.
 *
 *     TransparentLlmError
 *     +-- NotRunError            a read before `run`
 *     +-- InvalidRequestError    an argument that can never be right
 *     |   +-- TooLargeError      longer or larger than the model, the server or this client allows
 *     +-- IndexOutOfRangeError   a layer, head, neuron, position or batch index
 *     +-- NotFoundError          no such model; a run that the server no longer has
 *     +-- BusyError              no room now, try again after `retryAfterS`
 *     |   +-- CapacityError      the device ran out of memory
 *     +-- NotSupportedError      this model cannot give this value
 *     +-- UnavailableError       loading, draining, unreachable or lost
 *     +-- DeadlineError          not done within `timeoutMs`
 *     +-- CancelledError         the call was cancelled
 *     +-- AuthError              token missing, wrong or not allowed
 *     +-- ModelRefusedError      a model that failed its checks at load
 *     +-- InternalError          a bug in the server; quote its incident id
 */

/** What an error has beyond its message. */
export interface ErrorParts {
  reason?: string | undefined;
  metadata?: Readonly<Record<string, string>> | undefined;
  retryAfterS?: number | undefined;
  /** What led to it, as of any `Error`. */
  cause?: unknown;
}

/** Base of everything that this package throws on purpose. The message says what to do. */
export class TransparentLlmError extends Error {
  /** The reason of an error that names none. */
  static readonly defaultReason: string = "UNKNOWN";

  override readonly name: string = "TransparentLlmError"; // of its own: bundlers rename classes
  /** A constant for programs, of `ErrorReason` in errors.proto. */
  readonly reason: string;
  /** The numbers behind the message. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Seconds after which to try again, if the server said so. */
  readonly retryAfterS: number | undefined;

  constructor(message: string, parts: ErrorParts = {}) {
    super(message, parts.cause === undefined ? undefined : { cause: parts.cause });
    this.reason = parts.reason || new.target.defaultReason;
    this.metadata = { ...parts.metadata };
    this.retryAfterS = parts.retryAfterS;
  }
}

/** A value of the current run was asked for before `run`. */
export class NotRunError extends TransparentLlmError {
  override readonly name: string = "NotRunError";
  static override readonly defaultReason: string = "NOT_RUN";
}

/** An argument that can never be right: empty sentences, a wrong shape or dtype, an unknown token. */
export class InvalidRequestError extends TransparentLlmError {
  override readonly name: string = "InvalidRequestError";
  static override readonly defaultReason: string = "INVALID_REQUEST";
}

/** Longer than the model's context, or larger than the server or `maxBytes` allows. */
export class TooLargeError extends InvalidRequestError {
  override readonly name: string = "TooLargeError";
  static override readonly defaultReason: string = "TOO_LARGE";
}

/** A layer, head, neuron, position or batch index outside its axis. */
export class IndexOutOfRangeError extends TransparentLlmError {
  override readonly name: string = "IndexOutOfRangeError";
  static override readonly defaultReason: string = "INDEX_OUT_OF_RANGE";
}

/** An unknown model, a run that the server no longer has, or another model than before (MODEL_CHANGED). */
export class NotFoundError extends TransparentLlmError {
  override readonly name: string = "NotFoundError";
  static override readonly defaultReason: string = "NOT_FOUND";
}

/** The server has no room or no time now; `retryAfterS` says when to try again. */
export class BusyError extends TransparentLlmError {
  override readonly name: string = "BusyError";
  static override readonly defaultReason: string = "BUSY";
}

/** The device ran out of memory during the call; the server goes on. */
export class CapacityError extends BusyError {
  override readonly name: string = "CapacityError";
  static override readonly defaultReason: string = "OUT_OF_MEMORY";
}

/** The model has no such value, for example neurons in a layer without a feed-forward part. */
export class NotSupportedError extends TransparentLlmError {
  override readonly name: string = "NotSupportedError";
  static override readonly defaultReason: string = "NOT_SUPPORTED";
}

/** The server is loading, draining or unreachable, or the connection was lost. */
export class UnavailableError extends TransparentLlmError {
  override readonly name: string = "UnavailableError";
  static override readonly defaultReason: string = "UNAVAILABLE";
}

/** The call was not done within its time. */
export class DeadlineError extends TransparentLlmError {
  override readonly name: string = "DeadlineError";
  static override readonly defaultReason: string = "DEADLINE_EXCEEDED";
}

/** The call was cancelled before it was done; by a signal of the caller's, `cause` is the signal's reason. */
export class CancelledError extends TransparentLlmError {
  override readonly name: string = "CancelledError";
  static override readonly defaultReason: string = "CANCELLED";
}

/** The token or certificate is missing, wrong, or not allowed to do this. */
export class AuthError extends TransparentLlmError {
  override readonly name: string = "AuthError";
  static override readonly defaultReason: string = "UNAUTHENTICATED";
}

/** A model that failed its checks at load and is therefore not served. */
export class ModelRefusedError extends TransparentLlmError {
  override readonly name: string = "ModelRefusedError";
  static override readonly defaultReason: string = "MODEL_REFUSED";
}

/** A bug in the server, or a stream that breaks the protocol. `metadata.incident` finds it in the server's log. */
export class InternalError extends TransparentLlmError {
  override readonly name: string = "InternalError";
  static override readonly defaultReason: string = "INTERNAL";
}
