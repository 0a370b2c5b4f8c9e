/** The page from a server of static files, its calls through Envoy. */

import type { TestProject } from "vitest/node";
import { startEnvoy } from "../../../clients/typescript/test/support/envoy.js";
import { DATASET, startServer } from "../../../clients/typescript/test/support/server.js";
import { StaticServer } from "../../../clients/typescript/test/support/static_server.js";
import { BuiltPage } from "./built_page.js";
import "./provided.js";

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const built = await BuiltPage.make();
  const server = await startServer(...DATASET);
  const envoy = await startEnvoy(server.said);
  await built.nameServer(`http://${envoy.said}`);
  const files = await StaticServer.of(built.url);
  project.provide("target", server.said);
  project.provide("page", files.address);
  return async () => {
    await files.close();
    await envoy.endInput();
    await server.stop();
    await built.remove();
  };
}
