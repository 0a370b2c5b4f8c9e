// Files of one folder for a page, from this host: Envoy lets no other pages in.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

/** @type {Record<string, string>} */
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };

/** A running one. */
export class StaticServer {
  address = "";
  #server;
  #folder;

  /** @param {string} folder */
  constructor(folder) {
    this.#folder = folder;
    this.#server = createServer((request, response) => void this.#answer(request.url ?? "/", response));
  }

  /** @param {URL} folder */
  static async of(folder) {
    const server = new StaticServer(fileURLToPath(folder));
    await new Promise((resolve) => server.#server.listen(0, "127.0.0.1", () => resolve(undefined)));
    const { port } = /** @type {import("node:net").AddressInfo} */ (server.#server.address());
    server.address = `http://127.0.0.1:${port}/`;
    return server;
  }

  async close() {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /**
   * @param {string} url
   * @param {import("node:http").ServerResponse} response
   */
  async #answer(url, response) {
    const path = normalize(new URL(url, "http://localhost").pathname).replace(/\/$/, "/index.html");
    try {
      const body = await readFile(join(this.#folder, path));
      response.writeHead(200, { "content-type": TYPES[extname(path)] ?? "application/octet-stream" }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  }
}
