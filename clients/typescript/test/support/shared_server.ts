/** One server for all tests of a run. */

import type { TestProject } from "vitest/node";
import { DATASET, startServer } from "./server.js";

declare module "vitest" {
  export interface ProvidedContext {
    /** HOST:PORT of the server. */
    target: string;
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const server = await startServer(...DATASET);
  project.provide("target", server.said);
  return () => server.stop();
}
