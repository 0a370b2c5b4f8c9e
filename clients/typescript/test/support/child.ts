/** A program that says on a line of its output when it is ready. */

import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";

/** A running one. */
export class Child {
  /** What the line had in its first group. */
  readonly said: string;
  readonly #process: ChildProcess;

  private constructor(process: ChildProcess, said: string) {
    this.#process = process;
    this.said = said;
  }

  /** Start it, and wait for the line. */
  static async start(
    command: string,
    args: readonly string[],
    ready: RegExp,
    env: Record<string, string> = {},
  ): Promise<Child> {
    const child = spawn(command, args, { stdio: ["pipe", "pipe", "pipe"], env: { ...process.env, ...env } });
    let errors = "";
    child.stderr.on("data", (text) => {
      errors += text;
    });
    const ended = new Promise<never>((_, reject) => {
      child.on("error", reject);
      child.on("exit", (code) => reject(new Error(`${command} ended with ${code} before it was ready:\n${errors}`)));
    });
    ended.catch(() => {});
    const line = new Promise<string>((resolve) => {
      createInterface({ input: child.stdout }).on("line", (text) => {
        const found = ready.exec(text);
        if (found !== null) {
          resolve(found[1] as string);
        }
      });
    });
    return new Child(child, await Promise.race([line, ended]));
  }

  /** End it by force. */
  stop(): Promise<void> {
    return this.#endedBy(() => this.#process.kill("SIGKILL"));
  }

  /** End its input, which it takes as a request to end. */
  endInput(): Promise<void> {
    return this.#endedBy(() => this.#process.stdin?.end());
  }

  async #endedBy(cause: () => void): Promise<void> {
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      const ended = new Promise((resolve) => this.#process.once("exit", resolve));
      cause();
      await ended;
    }
  }
}
