/** The way to the service, and what it said of itself. */

import { type Signal, signal } from "@preact/signals";
import { connect, type RemoteTransparentLlm, type ServerInfo, UnavailableError } from "transparent-llm/web";

const TOKEN = "transparent-llm-token";
const POLL_MS = 2000;
const CALL_MS = 120_000;
/** A call that takes longer than this may wait for a server that is gone: the client itself waits half a minute. */
const SLOW_MS = 3000;

/** Where the service is: what the page's own head names, or else where the page came from. */
export function serverAddress(): string {
  const named = document.querySelector<HTMLMetaElement>('meta[name="transparent-llm-server"]')?.content.trim();
  return named || location.origin;
}

/** One for the whole page. The token stays in this tab, and is never part of an address. */
export class Connection {
  readonly address: string;
  /** What the server serves; undefined until it was asked. */
  readonly server: Signal<ServerInfo | undefined> = signal(undefined);
  /** False from the first call that found nobody until the server answers again. */
  readonly isThere = signal(true);
  /** Counts how often the server came back: what failed meanwhile is asked again. */
  readonly returns = signal(0);
  /** Called when the server is back. */
  onReturn: () => void = () => {};
  #polls: ReturnType<typeof setTimeout> | undefined;
  #isLooking = false;

  constructor(address: string) {
    this.address = address;
  }

  get token(): string {
    return sessionStorage.getItem(TOKEN) ?? "";
  }

  set token(token: string) {
    if (token === "") {
      sessionStorage.removeItem(TOKEN);
    } else {
      sessionStorage.setItem(TOKEN, token);
    }
  }

  /** A client of one of the models. Nothing is sent. */
  client(model: string): RemoteTransparentLlm {
    return connect(this.address, { model, timeoutMs: CALL_MS, ...(this.token === "" ? {} : { token: this.token }) });
  }

  /** Ask the server what it serves. */
  async ask(signal?: AbortSignal): Promise<ServerInfo> {
    const llm = this.client("");
    try {
      this.server.value = await llm.serverInfo({ signal });
      this.#found();
      return this.server.value;
    } catch (error) {
      this.failed(error);
      throw error;
    } finally {
      llm.close();
    }
  }

  /** Tell of an error of any call: if nobody answered, the server is looked for until it is back. */
  failed(error: unknown): void {
    if (error instanceof UnavailableError && this.#polls === undefined) {
      this.isThere.value = false;
      this.#polls = setTimeout(() => void this.#poll(), POLL_MS);
    }
  }

  /** A call, while which it is told if nobody is there any more. */
  async watched<T>(call: Promise<T>): Promise<T> {
    const looks = setInterval(() => void this.#look(), SLOW_MS);
    return call.finally(() => clearInterval(looks));
  }

  /** Somebody who is there may well be busy: only who cannot be reached is gone. */
  async #look(): Promise<void> {
    if (!this.#isLooking && this.isThere.value) {
      this.#isLooking = true;
      const llm = this.client("");
      await llm.serverInfo({ timeoutMs: POLL_MS }).catch((error: unknown) => this.failed(error));
      llm.close();
      this.#isLooking = false;
    }
  }

  async #poll(): Promise<void> {
    const llm = this.client("");
    const isServing = await llm.isServing({ timeoutMs: POLL_MS }).catch(() => false);
    llm.close();
    if (isServing) {
      this.#found();
      this.returns.value++;
      this.onReturn();
    } else {
      this.#polls = setTimeout(() => void this.#poll(), POLL_MS);
    }
  }

  #found(): void {
    clearTimeout(this.#polls);
    this.#polls = undefined;
    this.isThere.value = true;
  }
}
