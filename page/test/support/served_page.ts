/** One server and one page for all browser tests of a run: built anew, and served as users have it. */

import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "vite";
import type { TestProject } from "vitest/node";
import { startEnvoy } from "../../../clients/typescript/test/support/envoy.js";
import { startServer } from "../../../clients/typescript/test/support/server.js";
import { StaticServer } from "../../../clients/typescript/test/support/static_server.js";

declare module "vitest" {
  export interface ProvidedContext {
    /** HOST:PORT of the gRPC server. */
    target: string;
    /** The page's address. */
    page: string;
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const folder = await mkdtemp(join(tmpdir(), "transparent-llm-page-"));
  const configFile = fileURLToPath(new URL("../../vite.config.ts", import.meta.url));
  await build({ configFile, logLevel: "warn", build: { outDir: folder, emptyOutDir: true } });
  const server = await startServer();
  const envoy = await startEnvoy(server.said);
  await nameServer(join(folder, "index.html"), `http://${envoy.said}`);
  const files = await StaticServer.of(pathToFileURL(`${folder}/`));
  project.provide("target", server.said);
  project.provide("page", files.address);
  return async () => {
    await files.close();
    await envoy.endInput();
    await server.stop();
    await rm(folder, { recursive: true });
  };
}

/** As an operator does who serves the page from another place than the service. */
async function nameServer(index: string, address: string): Promise<void> {
  const html = await readFile(index, "utf8");
  const named = html.replace(/(name="transparent-llm-server" content=)""/, `$1"${address}"`);
  if (named === html) {
    throw new Error("index.html has no place for the server's address");
  }
  await writeFile(index, named);
}
