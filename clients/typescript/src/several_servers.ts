/** Several servers of the same models, in Node.js: each run lives on one of them. */

import type { DescMessage, DescMethodStreaming, DescMethodUnary, MessageInitShape } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  type ContextValues,
  type StreamResponse,
  type Transport,
  type UnaryResponse,
} from "@connectrpc/connect";
import { sha256 } from "@noble/hashes/sha2";
import { RUN_KEY_HEADER } from "./calls.js";
import { isOfConnection } from "./failures.js";
import type { Http2Sessions } from "./http2_sessions.js";

/** A server that does not take a connection within this time counts as absent. */
const LONGEST_CONNECT_MS = 5000;
/** For which one that was absent is not asked, at least, and by how much more than it took to find that out. */
const [ABSENT_MS, ABSENT_TIMES] = [1000, 10];

/** One of them. */
export interface OneServer {
  readonly address: string;
  readonly sessions: Http2Sessions;
  readonly transport: Transport;
}

/**
 * Sends each call to the server that its run key leads to, by the highest of their hashes with it; where that one is absent to
 * the next, which has not the run and is told to make it. Calls without a key go to one that is the same for this client.
 */
export class SeveralServers implements Transport {
  readonly #servers: readonly OneServer[];
  readonly #ofNoRun = String(Math.random());
  readonly #absentUntil = new Map<OneServer, number>();

  constructor(servers: readonly OneServer[]) {
    this.#servers = servers;
  }

  /** End all connections. */
  abort(): void {
    for (const { sessions } of this.#servers) {
      sessions.abort();
    }
  }

  async unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
    header: HeadersInit | undefined,
    input: MessageInitShape<I>,
    contextValues?: ContextValues,
  ): Promise<UnaryResponse<I, O>> {
    return this.#at(header, signal, timeoutMs, ({ transport }, leftMs) =>
      transport.unary(method, signal, leftMs, header, input, contextValues),
    );
  }

  async stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodStreaming<I, O>,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
    header: HeadersInit | undefined,
    input: AsyncIterable<MessageInitShape<I>>,
    contextValues?: ContextValues,
  ): Promise<StreamResponse<I, O>> {
    return this.#at(header, signal, timeoutMs, ({ transport }, leftMs) =>
      transport.stream(method, signal, leftMs, header, input, contextValues),
    );
  }

  /** Make a call; where its connection ends before it has begun, as behind a proxy, the server counts as absent too. */
  async #at<T>(
    header: HeadersInit | undefined,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
    call: (server: OneServer, leftMs: number | undefined) => Promise<T>,
  ): Promise<T> {
    const [server, leftMs] = await this.#present(header, signal, timeoutMs);
    try {
      return await call(server, leftMs);
    } catch (error) {
      if (isOfConnection(error)) {
        this.#isAbsent(server, 0);
      }
      throw error;
    }
  }

  /** A server was found absent, after so long. */
  #isAbsent(server: OneServer, tookMs: number): void {
    this.#absentUntil.set(server, performance.now() + Math.max(ABSENT_MS, ABSENT_TIMES * tookMs));
  }

  /** The first that takes a connection, and what is left of the time. */
  async #present(
    header: HeadersInit | undefined,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
  ): Promise<[OneServer, number | undefined]> {
    const [started, key] = [performance.now(), new Headers(header).get(RUN_KEY_HEADER) ?? this.#ofNoRun];
    const leftMs = (): number =>
      Math.max(1, Math.ceil((timeoutMs ?? Number.POSITIVE_INFINITY) - (performance.now() - started)));
    for (const server of this.#inOrder(key)) {
      const began = performance.now();
      if (await isPresent(server, Math.min(LONGEST_CONNECT_MS, leftMs()), signal)) {
        return [server, timeoutMs === undefined ? undefined : leftMs()];
      }
      if (signal?.aborted === true || leftMs() === 1) {
        throw new ConnectError(
          "no server took a connection in time",
          signal?.aborted ? Code.Canceled : Code.DeadlineExceeded,
        );
      }
      this.#isAbsent(server, performance.now() - began);
    }
    throw new ConnectError("none of the servers takes a connection", Code.Unavailable);
  }

  /** By the hash of each with the key; those that were absent only just at the end. */
  #inOrder(key: string): OneServer[] {
    const now = performance.now();
    const isAbsent = (server: OneServer): number => Number((this.#absentUntil.get(server) ?? 0) > now);
    const ranked = this.#servers.map((server) => ({ server, rank: rankOf(server.address, key) }));
    ranked.sort((a, b) => isAbsent(a.server) - isAbsent(b.server) || (a.rank < b.rank ? 1 : -1));
    return ranked.map(({ server }) => server);
  }
}

function rankOf(address: string, key: string): bigint {
  const { buffer, byteOffset } = sha256(`${key} ${address}`);
  return new DataView(buffer, byteOffset).getBigUint64(0);
}

/** Whether a server takes a connection, or has one, within this time. */
async function isPresent(
  { sessions }: OneServer,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  let stop = (): void => {};
  const over = new Promise<"error">((resolve) => {
    const give = (): void => resolve("error");
    const timer = setTimeout(give, timeoutMs);
    signal?.addEventListener("abort", give);
    stop = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", give);
    };
  });
  try {
    return (await Promise.race([sessions.connect(), over])) !== "error";
  } finally {
    stop();
  }
}
