/** The page and its calls from the server's own port: the files are those that the server has. */

import type { TestProject } from "vitest/node";
import { DATASET } from "../../../clients/typescript/test/support/server.js";
import { PageServer } from "./page_server.js";
import "./provided.js";

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const server = await PageServer.start(...DATASET);
  project.provide("target", server.target);
  project.provide("page", `${server.page}/`);
  return () => server.stop();
}
