/** The real server with its port for browsers. */

import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { PROJECT, PYTHON } from "../../../clients/typescript/test/support/python.js";

/** A running one. */
export class PageServer {
  /** HOST:PORT of gRPC. */
  readonly target: string;
  /** http://HOST:PORT of the page. */
  readonly page: string;
  readonly #process: ChildProcess;

  private constructor(process: ChildProcess, target: string, page: string) {
    this.#process = process;
    this.target = target;
    this.page = page;
  }

  /** Start one, and wait until it serves. */
  static async start(...flags: string[]): Promise<PageServer> {
    const args = ["-m", "transparent_llm", "serve", "--listen", "127.0.0.1:0", "--page", "127.0.0.1:0", ...flags];
    const child = spawn(PYTHON, args, { stdio: ["ignore", "pipe", "pipe"], cwd: PROJECT });
    const said: string[] = [];
    const [page, target] = await Promise.all([
      found(child, child.stderr, / page on (\S+)$/, said),
      found(child, child.stdout, /^ready: (\S+)$/, said),
    ]);
    return new PageServer(child, target, page);
  }

  /** End it by force. */
  async stop(): Promise<void> {
    const ended = new Promise((resolve) => this.#process.once("exit", resolve));
    this.#process.kill("SIGKILL");
    await ended;
  }
}

/** What a line of a stream has in the first group of a pattern. */
function found(child: ChildProcess, stream: NodeJS.ReadableStream, pattern: RegExp, said: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    createInterface({ input: stream }).on("line", (line) => {
      said.push(line);
      const match = pattern.exec(line);
      if (match !== null) {
        resolve(match[1] as string);
      }
    });
    child.on("error", reject);
    child.on("exit", (code) => reject(new Error(`the server ended with ${code}:\n${said.join("\n")}`)));
  });
}
