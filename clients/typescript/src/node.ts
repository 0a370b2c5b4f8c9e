/** Clients in Node.js: gRPC over HTTP/2. */

import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { createSecureContext, rootCertificates } from "node:tls";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { RemoteTransparentLlm } from "./client.js";
import { InvalidRequestError } from "./errors.js";
import { Http2Sessions, WINDOW_BYTES } from "./http2_sessions.js";
import { halfOfMemory } from "./memory.js";
import type { ClientOptions } from "./options.js";

export * from "./index.js";

/** Of a client in Node.js. */
export interface NodeOptions extends ClientOptions {
  /** CA certificates to trust: PEM text, the path of a PEM file, or "system" for those of Node.js. Turns TLS on. */
  readonly tlsCa?: string | undefined;
  /** A certificate, and its chain, to show to the server: PEM text or a path. Needs `tlsKey`. */
  readonly tlsCert?: string | undefined;
  /** Its private key without password: PEM text or a path. */
  readonly tlsKey?: string | undefined;
}

/** Tensors come in chunks of at most 4 MiB; the rest is tokens. */
const MAX_MESSAGE_BYTES = 16 * 2 ** 20;
/** When a call has received nothing for this long, the server is pinged. */
const KEEPALIVE_MS = 20_000;
const MOST_CACHE_BYTES = 512 * 2 ** 20;
const DEFAULT_PORT = 50051;
const SYSTEM_CA = "system";

/**
 * A client of the server at a target, HOST:PORT or HOST (port 50051). Nothing is sent before the first call.
 *
 * @throws InvalidRequestError options that contradict each other, or certificates that cannot be used.
 */
export function connect(target: string, options: NodeOptions = {}): RemoteTransparentLlm {
  const secure = secureOptions(options);
  const baseUrl = urlOf(target, secure !== undefined);
  const settings = { initialWindowSize: WINDOW_BYTES };
  const pings = { pingIntervalMs: KEEPALIVE_MS, pingTimeoutMs: KEEPALIVE_MS };
  const sessionManager = new Http2Sessions(baseUrl, pings, { ...secure, settings });
  const transport = createGrpcTransport({ baseUrl, sessionManager, readMaxBytes: MAX_MESSAGE_BYTES });
  return new RemoteTransparentLlm(
    { transport, target, onClose: () => sessionManager.abort(), maxBytes: halfOfMemory(), cacheBytes: cacheBytes() },
    options,
  );
}

/** Of values that are kept. */
function cacheBytes(): number {
  return Math.min(MOST_CACHE_BYTES, Math.floor(halfOfMemory() / 4));
}

function urlOf(target: string, isSecure: boolean): string {
  const address = /^(\[[^\]]+\]|[^/:?#@[\]]+)$/.test(target) ? `${target}:${DEFAULT_PORT}` : target;
  const url = `${isSecure ? "https" : "http"}://${address}`;
  if (!/^(\[[^\]]+\]|[^/:?#@]+):\d+$/.test(address) || !URL.canParse(url)) {
    throw new InvalidRequestError(
      `"${target}" is not an address; write HOST:PORT, as in 127.0.0.1:50051, and tlsCa for TLS`,
    );
  }
  return url;
}

interface SecureOptions {
  readonly ca: string | string[];
  readonly cert?: string;
  readonly key?: string;
}

function secureOptions({ tlsCa, tlsCert, tlsKey }: NodeOptions): SecureOptions | undefined {
  if ((tlsCert === undefined) !== (tlsKey === undefined)) {
    throw new InvalidRequestError("a client certificate requires both tlsCert and tlsKey");
  }
  if (tlsCa === undefined) {
    if (tlsCert !== undefined) {
      throw new InvalidRequestError('a client certificate is sent over TLS only: set tlsCa, perhaps to "system"');
    }
    return undefined;
  }
  const ca = tlsCa === SYSTEM_CA ? [...rootCertificates] : pem("tlsCa", tlsCa);
  const own = tlsCert !== undefined &&
    tlsKey !== undefined && { cert: pem("tlsCert", tlsCert), key: pem("tlsKey", tlsKey) };
  const secure = { ca, ...own };
  try {
    new X509Certificate(typeof ca === "string" ? ca : (ca[0] as string));
    createSecureContext(secure); // of files that do not fit a connection would say only that there is none
  } catch (error) {
    throw new InvalidRequestError(
      `cannot use these certificates: ${whyOf(error)}; all must be PEM, the key without a password`,
    );
  }
  return secure;
}

function pem(option: string, given: string): string {
  if (given.includes("-----BEGIN")) {
    return given;
  }
  let text: string;
  try {
    text = readFileSync(given, "utf8");
  } catch (error) {
    throw new InvalidRequestError(`cannot read ${option}: ${whyOf(error)}`);
  }
  if (!text.includes("-----BEGIN")) {
    throw new InvalidRequestError(`${given}, given as ${option}, has no PEM in it`);
  }
  return text;
}

function whyOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
