/** What a transport of Connect throws, as our errors: statuses that were sent, and connections that were lost. */

import { Code, ConnectError, decodeBinaryHeader } from "@connectrpc/connect";
import { type TransparentLlmError, UnavailableError } from "./errors.js";
import { legible, MOST_MESSAGE } from "./legible.js";
import { errorOfStatus } from "./status.js";

const STATUS = "grpc-status";
const DETAILS = "grpc-status-details-bin";

/** How Connect says that a connection ended before the call did. It has no codes of their own for these. */
const LOST = [
  /missing (status|trailer)/,
  /promised \d+ bytes, received \d+/,
  /incomplete envelope/,
  /http\/2 stream closed with error code/, // CANCEL too: Node says that of every stream of a connection that was closed
  /PING timed out/,
];

/** What Node says of a handshake, and what that means for the user. */
const TLS_FAILURES: readonly (readonly [RegExp, string])[] = [
  [/CERT_HAS_EXPIRED/, "its certificate was not accepted, as it has expired; its operator must renew it"],
  [/CERT_NOT_YET_VALID/, "its certificate was not accepted, as it is not yet valid; is this machine's clock right?"],
  [/ERR_TLS_CERT_ALTNAME_INVALID/, "its certificate was issued for a name other than the target's"],
  [/SELF_SIGNED_CERT|UNABLE_TO_/, "its certificate was not accepted: no authority in tlsCa has signed it"],
  [/ERR_SSL_WRONG_VERSION_NUMBER|EPROTO/, "it does not speak TLS; leave out tlsCa, or turn on TLS there"],
];

/** The error that a failed call raises. */
export function errorOfFailure(thrown: unknown, target: string): TransparentLlmError {
  const failure = ConnectError.from(thrown);
  const sent = failure.metadata.get(STATUS);
  if (sent !== null) {
    return errorOfStatus(
      { code: Number.parseInt(sent, 10), message: failure.rawMessage, details: detailsOf(failure) },
      target,
    );
  }
  return isLoss(failure)
    ? lossError(failure, target)
    : errorOfStatus({ code: failure.code, message: failure.rawMessage }, target);
}

/** Whether a call ended as its connection did, before any server said how it ended. */
export function isOfConnection(thrown: unknown): boolean {
  const failure = ConnectError.from(thrown);
  return failure.metadata.get(STATUS) === null && isLoss(failure);
}

function detailsOf(failure: ConnectError): Uint8Array | undefined {
  const encoded = failure.metadata.get(DETAILS);
  try {
    return encoded === null ? undefined : decodeBinaryHeader(encoded);
  } catch {
    return undefined;
  }
}

/** Whether the connection failed or ended, rather than that somebody answered, or that its time was over. */
function isLoss(failure: ConnectError): boolean {
  if (LOST.some((words) => words.test(failure.rawMessage)) || failure.code === Code.Aborted) {
    return true;
  }
  const isOver = failure.code === Code.Canceled || failure.code === Code.DeadlineExceeded;
  return !isOver && causes(failure).some((cause) => codeOf(cause) !== "" || cause instanceof TypeError);
}

function lossError(failure: ConnectError, target: string): UnavailableError {
  const found = causes(failure);
  const codes = found.map(codeOf).filter(Boolean);
  const said = legible([failure.rawMessage, ...codes].filter(Boolean).join(", "), MOST_MESSAGE);
  const meaning = TLS_FAILURES.find(([words]) => codes.some((code) => words.test(code)))?.[1];
  const isOfBrowser = found.some((cause) => cause instanceof TypeError); // which does not say why
  const admitted = isOfBrowser ? ", and does its CORS policy admit this page" : "";
  const message = meaning
    ? `no connection to ${target}: ${meaning} (${said})`
    : `no server answers at ${target} (${said}); is it running, is the address right${admitted}?`;
  return new UnavailableError(message, { metadata: { status: "UNAVAILABLE", target } });
}

/** The errors that led to it, the nearest first. */
function causes(failure: ConnectError): Error[] {
  const chain: Error[] = [];
  for (let cause = failure.cause; cause instanceof Error && !chain.includes(cause); cause = cause.cause) {
    chain.push(cause);
  }
  return chain;
}

/** Of an error of Node's, as in ECONNREFUSED. */
function codeOf(error: Error): string {
  return "code" in error && typeof error.code === "string" ? error.code : "";
}
