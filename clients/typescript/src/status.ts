/** Statuses of failed calls as errors. The only place that knows which error has which status code. */

import { fromBinary } from "@bufbuild/protobuf";
import { type Any, anyUnpack } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import * as errors from "./errors.js";
import {
  type ErrorInfo,
  ErrorInfoSchema,
  type RetryInfo,
  RetryInfoSchema,
  StatusSchema,
} from "./gen/google/rpc/error_details_pb.js";
import { isReason, legible, legibleMetadata, MOST_MESSAGE } from "./legible.js";

const DOMAIN = "transparent-llm";
/** That a server can ask for. */
const LONGEST_DELAY_S = 24 * 3600;

/** A status as gRPC gives it. */
export interface CallStatus {
  /** Its number. */
  readonly code: number;
  readonly message: string;
  /** The bytes of `grpc-status-details-bin`, if it came. */
  readonly details?: Uint8Array | undefined;
}

type ErrorClass = typeof errors.TransparentLlmError;

const BY_REASON: ReadonlyMap<string, ErrorClass> = new Map([
  ["TOO_LONG", errors.TooLargeError],
  ["TOO_LARGE", errors.TooLargeError],
  ["OUT_OF_MEMORY", errors.CapacityError],
  ["MODEL_REFUSED", errors.ModelRefusedError],
]);

const BY_CODE: ReadonlyMap<number, ErrorClass> = new Map<number, ErrorClass>([
  [Code.Canceled, errors.CancelledError],
  [Code.InvalidArgument, errors.InvalidRequestError],
  [Code.DeadlineExceeded, errors.DeadlineError],
  [Code.NotFound, errors.NotFoundError],
  [Code.PermissionDenied, errors.AuthError],
  [Code.ResourceExhausted, errors.BusyError],
  [Code.FailedPrecondition, errors.NotRunError],
  [Code.OutOfRange, errors.IndexOutOfRangeError],
  [Code.Unimplemented, errors.NotSupportedError],
  [Code.Unavailable, errors.UnavailableError],
  [Code.Unauthenticated, errors.AuthError],
]);

/** By number, as gRPC spells them. */
const CODE_NAMES = [
  ["OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"],
  ["PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"],
  ["INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"],
].flat();

/** What gRPC says, as RESOURCE_EXHAUSTED, of a message that one of the two sides does not take. */
const TOO_LARGE = ["larger than max", "larger than configured", "metadata size exceeds"];

/** What gRPC says, as INTERNAL, of a stream that a proxy broke off because it lost the server behind it. */
const STREAM_RESET = "RST_STREAM";

/** The error that a failed call raises; `target` is named where the server could not speak for itself. */
export function errorOfStatus(status: CallStatus, target: string): errors.TransparentLlmError {
  const details = ownDetails(status.details);
  if (details === undefined) {
    return plainError(status, target);
  }
  const { info, retry, message } = details;
  const kind = BY_REASON.get(info.reason) ?? BY_CODE.get(status.code) ?? errors.InternalError;
  return new kind(legible(message, MOST_MESSAGE), {
    ...(isReason(info.reason) && { reason: info.reason }),
    metadata: legibleMetadata(info.metadata),
    retryAfterS: delayOf(retry),
  });
}

/** In seconds; undefined for a delay that nobody should wait for: below 0, or longer than a day. */
function delayOf(retry: RetryInfo | undefined): number | undefined {
  if (retry === undefined) {
    return undefined;
  }
  const { seconds, nanos } = retry.retryDelay ?? { seconds: 0n, nanos: 0 };
  const isDelay = seconds >= 0n && nanos >= 0 && nanos < 1e9;
  const delay = Number(seconds) + nanos / 1e9;
  return isDelay && delay <= LONGEST_DELAY_S ? delay : undefined;
}

interface Details {
  readonly message: string;
  readonly info: ErrorInfo;
  readonly retry: RetryInfo | undefined;
}

/** The details of a failed call, if they are there, can be read, and are ours. */
function ownDetails(bytes: Uint8Array | undefined): Details | undefined {
  if (bytes === undefined) {
    return undefined;
  }
  try {
    const status = fromBinary(StatusSchema, bytes);
    const infos = status.details.map(infoOf).filter((info) => info !== undefined);
    const retries = status.details.map(retryOf).filter((retry) => retry !== undefined);
    const info = infos.find((each) => each.domain === DOMAIN);
    return info && { message: status.message, info, retry: retries[0] };
  } catch {
    return undefined; // what cannot be read says nothing; the status alone tells
  }
}

function infoOf(detail: Any): ErrorInfo | undefined {
  return anyUnpack(detail, ErrorInfoSchema);
}

function retryOf(detail: Any): RetryInfo | undefined {
  return anyUnpack(detail, RetryInfoSchema);
}

function plainError({ code, message: said }: CallStatus, target: string): errors.TransparentLlmError {
  const message = legible(said, MOST_MESSAGE);
  if (code === Code.ResourceExhausted && TOO_LARGE.some((words) => message.includes(words))) {
    return new errors.TooLargeError(`a message was too large for ${target}: ${message}; send less at once`);
  }
  const wasReset = code === Code.Internal && message.includes(STREAM_RESET);
  const kind = wasReset ? errors.UnavailableError : (BY_CODE.get(code) ?? errors.InternalError);
  const status = CODE_NAMES[code] ?? "UNKNOWN";
  return new kind(plainMessage(status, wasReset, message, target), { metadata: { status, target } });
}

function plainMessage(status: string, wasReset: boolean, said: string, target: string): string {
  if (wasReset) {
    return `${target} broke off the call (${said}); has a proxy lost the server behind it?`;
  }
  switch (status) {
    case "UNAVAILABLE":
      return `no server answers at ${target} (${said}); is it running, and is the address right?`;
    case "DEADLINE_EXCEEDED":
      return `${target} did not answer within the time allowed (${said}); raise timeoutMs if the work is long`;
    case "UNIMPLEMENTED":
      return `the server at ${target} does not know this method (${said}); is it older than this client?`;
    default:
      return `${status} from ${target}: ${said}`;
  }
}
