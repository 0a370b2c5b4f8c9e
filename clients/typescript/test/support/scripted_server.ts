/** A gRPC server that answers as a test says: what the real one does only in trouble, and what it never does. */

import { createServer, type Http2Server } from "node:http2";
import type { AddressInfo } from "node:net";
import { type Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { ErrorInfoSchema, RetryInfoSchema } from "../../src/gen/google/rpc/error_details_pb.js";
import { TransparentLlmService } from "../../src/gen/transparent_llm/v1/service_pb.js";

/** What it answers, by RPC. */
export type Answers = Partial<ServiceImpl<typeof TransparentLlmService>>;

/** A running one. */
export class ScriptedServer {
  readonly #server: Http2Server;

  private constructor(answers: Answers) {
    this.#server = createServer(
      connectNodeAdapter({ routes: (router) => router.service(TransparentLlmService, answers) }),
    );
  }

  static async start(answers: Answers): Promise<ScriptedServer> {
    const started = new ScriptedServer(answers);
    await new Promise<void>((resolve) => started.#server.listen(0, "127.0.0.1", resolve));
    return started;
  }

  get address(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

/** An error with details as the real server's. */
export function refusal(
  code: Code,
  reason: string,
  metadata: Record<string, string> = {},
  retryMs?: number,
): ConnectError {
  const details = [{ desc: ErrorInfoSchema, value: { reason, domain: "transparent-llm", metadata } }];
  const [seconds, ms] = [Math.trunc((retryMs ?? 0) / 1000), (retryMs ?? 0) % 1000];
  const retry = { seconds: BigInt(seconds), nanos: ms * 1e6 };
  const more = retryMs === undefined ? [] : [{ desc: RetryInfoSchema, value: { retryDelay: retry } }];
  return new ConnectError(`this is ${reason}`, code, undefined, [...details, ...more]);
}
