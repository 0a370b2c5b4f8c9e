/** The page before a server whose model has no attention in its first layer. */

import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { inject } from "vitest";
import type { Child } from "../../../clients/typescript/test/support/child.js";
import { startEnvoy } from "../../../clients/typescript/test/support/envoy.js";
import { PROJECT, PYTHON } from "../../../clients/typescript/test/support/python.js";
import { startServer } from "../../../clients/typescript/test/support/server.js";
import { StaticServer } from "../../../clients/typescript/test/support/static_server.js";
import type { Served } from "./browser.js";

const SCRIPT = fileURLToPath(new URL("hybrid_model.py", import.meta.url));

/** All of it, for one file of tests. */
export class HybridModel implements Served {
  readonly target: string;
  readonly page: string;
  readonly #server: Child;
  readonly #envoy: Child;
  readonly #files: StaticServer;
  readonly #folder: string;

  private constructor(server: Child, envoy: Child, files: StaticServer, folder: string) {
    [this.target, this.page] = [server.said, files.address];
    [this.#server, this.#envoy, this.#files, this.#folder] = [server, envoy, files, folder];
  }

  static async start(): Promise<HybridModel> {
    const folder = await mkdtemp(join(tmpdir(), "transparent-llm-hybrid-"));
    const [model, site] = [join(folder, "hybrid"), join(folder, "page")];
    await promisify(execFile)(PYTHON, [SCRIPT, model], { env: { ...process.env, PYTHONPATH: `${PROJECT}tests` } });
    const server = await startServer("--model", model);
    const envoy = await startEnvoy(server.said);
    await copyPage(site, `http://${envoy.said}`);
    return new HybridModel(server, envoy, await StaticServer.of(pathToFileURL(`${site}/`)), folder);
  }

  async close(): Promise<void> {
    await this.#files.close();
    await this.#envoy.endInput();
    await this.#server.stop();
    await rm(this.#folder, { recursive: true });
  }
}

/** The page that was built for all tests, before another server. */
async function copyPage(folder: string, address: string): Promise<void> {
  await mkdir(folder);
  for (const name of ["index.html", "page.js", "page.css"]) {
    const text = await (await fetch(`${inject("page")}${name}`)).text();
    await writeFile(
      join(folder, name),
      text.replace(/(name="transparent-llm-server" content=)"[^"]*"/, `$1"${address}"`),
    );
  }
}
