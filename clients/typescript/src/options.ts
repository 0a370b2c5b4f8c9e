/** What a client is made with, and what each of its calls can be asked. */

import type { DtypeName } from "./dtypes.js";
import { InvalidRequestError } from "./errors.js";
import type { Edit } from "./interventions/edit.js";
import { requireTimeout } from "./scope.js";
import type { Slices } from "./slices.js";

/** Of a client, and of its copies. */
export interface ClientOptions {
  /** Name of the model, needed only where several are served. */
  readonly model?: string | undefined;
  /** Sent as a bearer token with every call. */
  readonly token?: string | undefined;
  /** Milliseconds for each call as a whole, transfer included. Default: 300 000. */
  readonly timeoutMs?: number | undefined;
  /**
   * Seconds for which a call waits for a server that had answered before and was lost, within its own time. Calls of one
   * client wait for it together. Default: 30. 0: no call does.
   */
  readonly reconnectS?: number | undefined;
  /** Run the sentences again when the server no longer has the run. Default: true. False: throw `NotFoundError`. */
  readonly rerun?: boolean | undefined;
  /**
   * The most bytes that one value may take here; a larger one throws `TooLargeError` before its memory is taken.
   * Default: in Node.js half of the memory of this machine, or of its container; in browsers 2 GiB.
   */
  readonly maxBytes?: number | undefined;
  /**
   * The most bytes of values of current runs that are kept, so that asking twice sends nothing twice; `onProgress` is not called
   * then. One value of more than a quarter of it is not kept. Default: in Node.js 512 MiB, or an eighth of the memory of the
   * machine or container if that is less; in browsers 64 MiB. 0: nothing is kept.
   */
  readonly cacheBytes?: number | undefined;
  /** The most bytes of output vectors of neurons that are kept. Default: 256 MiB. */
  readonly weightsBytes?: number | undefined;
}

/** How far a transfer is. */
export interface Progress {
  readonly receivedBytes: number;
  /** Of all tensors that were announced so far. */
  readonly totalBytes: number;
}

/** Of any call. */
export interface CallOptions {
  /** Cancels the call, here and on the server; it then throws `CancelledError`, whose `cause` is the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds for the call as a whole. Default: the client's. */
  readonly timeoutMs?: number | undefined;
}

/** Of a call that runs. */
export interface RunOptions extends CallOptions {
  /** Changes on the way, made by `transparent-llm/interventions`. Default: none. */
  readonly edits?: readonly Edit[] | undefined;
}

/** Of a call that makes tokens of a text. */
export interface TextOptions extends CallOptions {
  /**
   * Whether the beginning token is put before a text that does not start with it. Default: as the model wants it, as
   * `run` does it.
   */
  readonly addBos?: boolean | undefined;
}

/** Of a call that brings tensors. */
export interface ReadOptions extends CallOptions {
  /**
   * Parts of axes, by their names; a value keeps its axes, which are shorter. An axis that the value does not have,
   * or one of the values of a `fetch`, throws `InvalidRequestError`.
   */
  readonly slices?: Slices | undefined;
  /** The floating type in which a floating value is sent: F16, BF16, F32 or F64. Default: as the server holds it. */
  readonly dtype?: DtypeName | undefined;
  /** Called after each message of the transfer. */
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

/** Options with their defaults. */
export interface ClientConfig {
  readonly target: string;
  readonly model: string;
  readonly token: string | undefined;
  readonly timeoutMs: number;
  readonly reconnectS: number;
  readonly rerun: boolean;
  readonly maxBytes: number;
  readonly cacheBytes: number;
  readonly weightsBytes: number;
}

const DEFAULT_TIMEOUT_MS = 300_000;
const [DEFAULT_RECONNECT_S, LONGEST_RECONNECT_S] = [30, 24 * 3600];
const DEFAULT_WEIGHTS_BYTES = 256 * 2 ** 20;
const DEFAULT_CACHE_BYTES = 64 * 2 ** 20;
const DEFAULT_MAX_BYTES = 2 ** 31;

/** What a connection says where no option does. */
export interface ConfigDefaults {
  /** The server's address, for messages. */
  readonly target: string;
  /** The most that one value may take. Default: 2 GiB. */
  readonly maxBytes?: number;
  /** The most bytes of values that are kept. Default: 64 MiB. */
  readonly cacheBytes?: number;
}

/**
 * Options, checked.
 *
 * @throws InvalidRequestError one of them can never be right.
 */
export function configured(
  { target, maxBytes: most = DEFAULT_MAX_BYTES, cacheBytes: kept = DEFAULT_CACHE_BYTES }: ConfigDefaults,
  options: ClientOptions,
): ClientConfig {
  const { token, maxBytes = most, reconnectS = DEFAULT_RECONNECT_S, cacheBytes = kept } = options;
  if (token !== undefined && !/^[\x20-\x7e]*$/.test(token)) {
    throw new InvalidRequestError(
      "the token contains characters that cannot be sent in a header: " +
        "perhaps a trailing line break, or non-ASCII letters",
    );
  }
  if (!(cacheBytes >= 0)) {
    throw new InvalidRequestError(`cacheBytes is ${cacheBytes}: it must be 0 or more`);
  }
  if (!(maxBytes >= 1)) {
    throw new InvalidRequestError(`maxBytes is ${maxBytes}: it must be 1 or more`);
  }
  if (!(reconnectS >= 0 && reconnectS <= LONGEST_RECONNECT_S)) {
    throw new InvalidRequestError(`reconnectS is ${reconnectS}: it must be 0 to ${LONGEST_RECONNECT_S}`);
  }
  return {
    target,
    model: options.model ?? "",
    token: token || undefined,
    timeoutMs: requireTimeout(options.timeoutMs ?? DEFAULT_TIMEOUT_MS),
    reconnectS,
    rerun: options.rerun ?? true,
    maxBytes,
    cacheBytes,
    weightsBytes: options.weightsBytes ?? DEFAULT_WEIGHTS_BYTES,
  };
}
