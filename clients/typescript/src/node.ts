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
import { type OneServer, SeveralServers } from "./several_servers.js";

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
const MOST_TARGETS = 64;
const MOST_CACHE_BYTES = 512 * 2 ** 20;
const DEFAULT_PORT = 50051;
const SYSTEM_CA = "system";

/**
 * A client of the server at a target, HOST:PORT or HOST (port 50051). Nothing is sent before the first call.
 *
 * Of several targets, servers of the same models, each run lives on one, to which its key leads; where that one is gone, the
 * run is made again on another.
 *
 * @throws InvalidRequestError options that contradict each other, certificates that cannot be used, or no target.
 */
export function connect(target: string | readonly string[], options: NodeOptions = {}): RemoteTransparentLlm {
  const secure = secureOptions(options);
  const servers = targetsOf(target).map((each) => serverAt(each, secure));
  const [only, ...others] = servers as [OneServer, ...OneServer[]];
  const several = others.length > 0 ? new SeveralServers(servers) : undefined;
  const connection = {
    transport: several ?? only.transport,
    target: servers.map(({ address }) => address).join(", "),
    onClose: () => (several ?? only.sessions).abort(),
  };
  return new RemoteTransparentLlm({ ...connection, maxBytes: halfOfMemory(), cacheBytes: cacheBytes() }, options);
}

function serverAt(address: string, secure: SecureOptions | undefined): OneServer {
  const baseUrl = urlOf(address, secure !== undefined);
  const settings = { initialWindowSize: WINDOW_BYTES };
  const pings = { pingIntervalMs: KEEPALIVE_MS, pingTimeoutMs: KEEPALIVE_MS };
  const sessions = new Http2Sessions(baseUrl, pings, { ...secure, settings });
  const transport = createGrpcTransport({ baseUrl, sessionManager: sessions, readMaxBytes: MAX_MESSAGE_BYTES });
  return { address, sessions, transport };
}

function targetsOf(given: string | readonly string[]): readonly string[] {
  const targets = typeof given === "string" ? [given] : given;
  if (!Array.isArray(targets) || targets.length === 0 || targets.length > MOST_TARGETS) {
    throw new InvalidRequestError(`connect takes HOST:PORT, or an array of 1 to ${MOST_TARGETS} of them`);
  }
  if (new Set(targets).size !== targets.length) {
    throw new InvalidRequestError(`one target is named twice in ${targets.join(", ")}`);
  }
  return targets;
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
