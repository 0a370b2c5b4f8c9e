/** The real server, with the embedded model. */

import { fileURLToPath } from "node:url";
import { Child } from "./child.js";
import { PYTHON } from "./python.js";

/** A data set of four sentences, one of them an attack on a page. */
export const DATASET = ["--dataset", `lines=${fileURLToPath(new URL("dataset.txt", import.meta.url))}`];

/** Start one. Its address is what it said. */
export function startServer(...flags: string[]): Promise<Child> {
  const args = ["-m", "transparent_llm", "serve", "--listen", "127.0.0.1:0", ...flags];
  return Child.start(PYTHON, args, /^ready: (.*)$/);
}

/** Start one with a tiny random model that has a sparse autoencoder, "random", and a chat template. */
export function startTinyServer(): Promise<Child> {
  return Child.start(PYTHON, [fileURLToPath(new URL("tiny_server.py", import.meta.url))], /^ready: (.*)$/);
}
