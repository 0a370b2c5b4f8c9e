/** The page, built anew: what is tested is what these sources make. */

import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "vite";

const CONFIG = fileURLToPath(new URL("../../vite.config.ts", import.meta.url));

/** A folder with the files of the page. */
export class BuiltPage {
  readonly folder: string;

  private constructor(folder: string) {
    this.folder = folder;
  }

  static async make(): Promise<BuiltPage> {
    const folder = await mkdtemp(join(tmpdir(), "transparent-llm-page-"));
    await build({ configFile: CONFIG, logLevel: "warn", build: { outDir: folder, emptyOutDir: true } });
    return new BuiltPage(folder);
  }

  get url(): URL {
    return pathToFileURL(`${this.folder}/`);
  }

  /** Name the service, as an operator does who serves the page from another place than it. */
  async nameServer(address: string): Promise<void> {
    const index = join(this.folder, "index.html");
    const html = await readFile(index, "utf8");
    const named = html.replace(/(name="transparent-llm-server" content=)""/, `$1"${address}"`);
    if (named === html) {
      throw new Error("index.html has no place for the server's address");
    }
    await writeFile(index, named);
  }

  async remove(): Promise<void> {
    await rm(this.folder, { recursive: true });
  }
}
