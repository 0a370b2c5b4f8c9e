/** A driver of the conformance suite, asked as its runner asks it. */

import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { createInterface, type Interface } from "node:readline";
import { fileURLToPath } from "node:url";

/** What a driver answers. */
export interface Answer {
  readonly id: number;
  // biome-ignore lint/suspicious/noExplicitAny: it is JSON of many kinds
  readonly ok?: any;
  readonly error?: { readonly class: string; readonly reason: string; readonly metadata: Record<string, string> };
}

/** A running one. */
export class Driver {
  readonly #process: ChildProcessWithoutNullStreams;
  readonly #lines: AsyncIterator<string>;
  #asked = 0;

  constructor(script: string) {
    const path = fileURLToPath(new URL(`../../conformance/${script}`, import.meta.url));
    this.#process = spawn(process.execPath, [path], { stdio: ["pipe", "pipe", "pipe"] });
    this.#process.stderr.resume();
    const lines: Interface = createInterface({ input: this.#process.stdout });
    this.#lines = lines[Symbol.asyncIterator]();
  }

  async ask(op: string, fields: object = {}): Promise<Answer> {
    const id = ++this.#asked;
    this.#process.stdin.write(`${JSON.stringify({ id, op, ...fields })}\n`);
    const { value, done } = await this.#lines.next();
    if (done) {
      throw new Error(`the driver ended instead of answering ${op}`);
    }
    const answer = JSON.parse(value) as Answer;
    if (answer.id !== id) {
      throw new Error(`the driver answered ${answer.id}, was asked ${id}`);
    }
    return answer;
  }

  call(method: string, args: readonly unknown[] = [], fields: object = {}): Promise<Answer> {
    return this.ask("call", { method, args, ...fields });
  }

  /** The status that it ends with when its input ends. */
  async end(): Promise<number | null> {
    const ended = new Promise<number | null>((resolve) => this.#process.once("exit", resolve));
    this.#process.stdin.end();
    return ended;
  }
}
