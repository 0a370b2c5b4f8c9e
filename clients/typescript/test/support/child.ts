/** A program that says on a line of its output when it is ready. */

import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";

/** What it has written to its standard error so far. */
interface Log {
  text: string;
}

/** A running one. */
export class Child {
  /** What the line had in its first group. */
  readonly said: string;
  readonly #process: ChildProcess;
  readonly #log: Log;

  private constructor(process: ChildProcess, said: string, log: Log) {
    this.#process = process;
    this.said = said;
    this.#log = log;
  }

  /** Start it, and wait for the line. */
  static async start(
    command: string,
    args: readonly string[],
    ready: RegExp,
    env: Record<string, string> = {},
  ): Promise<Child> {
    const child = spawn(command, args, { stdio: ["pipe", "pipe", "pipe"], env: { ...process.env, ...env } });
    const log: Log = { text: "" };
    child.stderr.on("data", (text) => {
      log.text += text;
    });
    const ended = new Promise<never>((_, reject) => {
      child.on("error", reject);
      child.on("exit", (code) => reject(new Error(`${command} ended with ${code} before it was ready:\n${log.text}`)));
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
    return new Child(child, await Promise.race([line, ended]), log);
  }

  /** What its standard error has, or will have, in the first group of this pattern. */
  logged(pattern: RegExp): Promise<string> {
    return new Promise((resolve) => {
      const look = (): void => {
        const found = pattern.exec(this.#log.text);
        if (found !== null) {
          this.#process.stderr?.off("data", look);
          resolve(found[1] as string);
        }
      };
      this.#process.stderr?.on("data", look);
      look();
    });
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
