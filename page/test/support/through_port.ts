/** The page and its calls from the server's own port: the files are those that the server has. */

import type { TestProject } from "vitest/node";
import { PageServer } from "./page_server.js";
import "./provided.js";

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const server = await PageServer.start();
  project.provide("target", server.target);
  project.provide("page", `${server.page}/`);
  return () => server.stop();
}
