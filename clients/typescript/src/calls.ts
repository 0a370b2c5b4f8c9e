/**
 * The choke point: every call of the client goes through `unary` or `tensors`.
 *
 * Here are deadline, token, routing key, progress, cancellation, and resumption of a broken stream.
 */

import {
  create,
  type DescMessage,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  type MessageShape,
} from "@bufbuild/protobuf";
import type { Transport } from "@connectrpc/connect";
import { Absence } from "./absence.js";
import { Assembler, type NamedTensor, StreamError } from "./assembler.js";
import { DeadlineError, InternalError, InvalidRequestError, TransparentLlmError, UnavailableError } from "./errors.js";
import type { Expecting } from "./expected.js";
import { errorOfFailure } from "./failures.js";
import { Health, HealthCheckRequestSchema, HealthCheckResponse_ServingStatus } from "./gen/grpc/health/v1/health_pb.js";
import { type TensorChunkSchema, type TensorOptions, TensorOptionsSchema } from "./gen/transparent_llm/v1/tensor_pb.js";
import type { CallOptions, ClientConfig, Progress } from "./options.js";
import { Retries } from "./retries.js";
import { Scope } from "./scope.js";
import { UnderWay } from "./under_way.js";

/** A hint for proxies, the same for a run and all reads of it. */
export const RUN_KEY_HEADER = "x-transparent-llm-run-key";

/** A request for tensors. */
export type TensorRequest = MessageShape<DescMessage> & { options?: TensorOptions | undefined };

/** Calls to one server. Shared by a client and its copies. */
export class Calls {
  readonly config: ClientConfig;
  readonly #transport: Transport;
  readonly #onClose: () => void;
  readonly #underWay = new UnderWay();
  #isClosed = false;
  #hasAnswered = false;
  readonly #absence = new Absence();

  constructor(transport: Transport, config: ClientConfig, onClose: () => void) {
    this.#transport = transport;
    this.config = config;
    this.#onClose = onClose;
  }

  /** End all calls under way, and refuse new ones. */
  close(): void {
    if (!this.#isClosed) {
      this.#isClosed = true;
      this.#underWay.cancelAll();
      this.#onClose();
    }
  }

  /**
   * Do something within the time, and under the signal, of one call.
   *
   * @throws InvalidRequestError the client was closed.
   */
  async within<T>(options: CallOptions, work: (scope: Scope) => Promise<T>): Promise<T> {
    if (this.#isClosed) {
      throw new InvalidRequestError("this client is closed; make a new one with connect()");
    }
    const scope = new Scope(options.timeoutMs ?? this.config.timeoutMs);
    this.#underWay.add(scope, options.signal);
    try {
      return await work(scope);
    } finally {
      this.#underWay.remove(scope, options.signal);
    }
  }

  /** Ask the standard health service, once; false where none answers. */
  async isServing(scope: Scope): Promise<boolean> {
    try {
      const response = await this.#unaryOnce(Health.method.check, create(HealthCheckRequestSchema), scope, "");
      return response.status === HealthCheckResponse_ServingStatus.SERVING;
    } catch (error) {
      if (error instanceof UnavailableError || error instanceof DeadlineError) {
        return false;
      }
      throw error;
    }
  }

  /** Send one message, get one. Again, if a server was lost or had no room: equal requests have equal effects. */
  async unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageShape<I>,
    scope: Scope,
    runKey = "",
  ): Promise<MessageShape<O>> {
    const retries = this.#retries(scope);
    for (;;) {
      try {
        const answer = await this.#unaryOnce(method, request, scope, runKey);
        this.#absence.end();
        return answer;
      } catch (error) {
        await retries.backoff(asOurs(error));
      }
    }
  }

  /**
   * Receive a stream's tensors; a broken stream is taken up where it broke off.
   *
   * @throws InternalError the stream breaks the protocol, or brings something else than what is expected.
   */
  async tensors(
    method: DescMethodServerStreaming<DescMessage, typeof TensorChunkSchema>,
    request: TensorRequest,
    expected: Expecting,
    scope: Scope,
    runKey = "",
    onProgress?: (progress: Progress) => void,
  ): Promise<NamedTensor[]> {
    const assembler = new Assembler(
      this.config.maxBytes,
      expected.most,
      (header) => expected.check(header),
      (before, name) => expected.continues(before, name),
    );
    const retries = this.#retries(scope);
    for (;;) {
      const before = assembler.received;
      try {
        await this.#receive(method, request, scope, runKey, (chunk) => {
          assembler.add(chunk);
          onProgress?.({ receivedBytes: assembler.received, totalBytes: assembler.totalBytes });
        });
        const tensors = assembler.tensors();
        this.#absence.end();
        return tensors;
      } catch (error) {
        const failure = this.#streamFailure(error, method.name);
        await retries.backoff(failure, assembler, assembler.received > before);
      }
      assembler.resume();
      request.options ??= create(TensorOptionsSchema);
      request.options.resumeOffset = BigInt(assembler.received);
      request.options.etag = assembler.etag;
    }
  }

  /**
   * Receive the messages of a stream; where it breaks, what is left is asked for.
   *
   * @param request what is left.
   * @param take what becomes of a message; whether it is one step further.
   * @param result what has come of all.
   * @throws InternalError the stream breaks the protocol.
   */
  async each<I extends DescMessage, O extends DescMessage, T>(
    method: DescMethodServerStreaming<I, O>,
    request: () => MessageShape<I>,
    take: (message: MessageShape<O>) => boolean,
    result: () => T,
    scope: Scope,
    runKey: string,
  ): Promise<T> {
    const retries = this.#retries(scope);
    for (;;) {
      let hasProgress = false;
      try {
        await this.#receive(method, request(), scope, runKey, (message) => {
          hasProgress = take(message) || hasProgress;
        });
        const found = result();
        this.#absence.end();
        return found;
      } catch (error) {
        await retries.backoff(this.#streamFailure(error, method.name), undefined, hasProgress);
      }
    }
  }

  #retries(scope: Scope): Retries {
    return new Retries(scope, this.config, this.#absence, this.#hasAnswered);
  }

  async #unaryOnce<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageShape<I>,
    scope: Scope,
    runKey: string,
  ): Promise<MessageShape<O>> {
    requireWanted(scope);
    const headers = this.#headers(runKey);
    try {
      // Its types want the initializer of a message, which a message itself is.
      const call = this.#transport.unary(method, scope.signal, timeLeft(scope), headers, request as never);
      const { message } = await call;
      this.#hasAnswered = true;
      return message;
    } catch (error) {
      throw this.#failure(error, scope);
    }
  }

  async #receive<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageShape<I>,
    scope: Scope,
    runKey: string,
    take: (message: MessageShape<O>) => void,
  ): Promise<void> {
    requireWanted(scope);
    // Of its own: leaving a stream of Connect before its end does not tell the server.
    const call = new AbortController();
    const abort = (): void => call.abort();
    scope.signal.addEventListener("abort", abort);
    const messages = this.#messages(method, request, scope, call.signal, this.#headers(runKey));
    try {
      for await (const message of messages) {
        take(message);
      }
    } finally {
      scope.signal.removeEventListener("abort", abort);
      abort();
    }
  }

  /** What comes, with every failure of the call as ours. */
  async *#messages<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageShape<I>,
    scope: Scope,
    signal: AbortSignal,
    headers: Headers,
  ): AsyncGenerator<MessageShape<O>> {
    try {
      const call = this.#transport.stream(method, signal, timeLeft(scope), headers, once(request) as never);
      const response = await call;
      const incoming = response.message[Symbol.asyncIterator]();
      let isLeftEarly = true;
      try {
        for (let next = await incoming.next(); !next.done; next = await incoming.next()) {
          this.#hasAnswered = true;
          yield next.value;
        }
        isLeftEarly = false;
      } finally {
        if (isLeftEarly) {
          incoming.next().catch(() => {}); // it fails with the call; without it Connect never clears its deadline's timer
        }
      }
    } catch (error) {
      throw this.#failure(error, scope);
    }
  }

  #failure(error: unknown, scope: Scope): TransparentLlmError {
    return scope.isCancelled ? scope.cancelled() : errorOfFailure(error, this.config.target);
  }

  #streamFailure(error: unknown, rpc: string): TransparentLlmError {
    if (error instanceof StreamError) {
      return new InternalError(`${this.config.target} broke the protocol in ${rpc}: ${error.message}`);
    }
    return asOurs(error);
  }

  #headers(runKey: string): Headers {
    const headers = new Headers();
    if (runKey !== "") {
      headers.set(RUN_KEY_HEADER, runKey);
    }
    if (this.config.token !== undefined) {
      headers.set("authorization", `Bearer ${this.config.token}`);
    }
    return headers;
  }
}

/** @throws CancelledError the call was cancelled before it is made: no connection is opened for it. */
function requireWanted(scope: Scope): void {
  if (scope.isCancelled) {
    throw scope.cancelled();
  }
}

/** In whole milliseconds, and at least one: Connect takes 0 for no limit. */
function timeLeft(scope: Scope): number {
  return Math.max(1, Math.ceil(scope.remainingMs));
}

/**
 * An error that a failed call raised; anything else, such as an error of the caller's own callback, goes on as it is.
 */
function asOurs(error: unknown): TransparentLlmError {
  if (error instanceof TransparentLlmError) {
    return error;
  }
  throw error;
}

async function* once<T>(message: T): AsyncGenerator<T> {
  yield message;
}
