/** The page, with the client from its sources. */

import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const client = fileURLToPath(new URL("../../src/web.ts", import.meta.url));

export default defineConfig({
  root: fileURLToPath(new URL(".", import.meta.url)),
  base: "./",
  server: { host: "localhost" },
  resolve: { alias: { "transparent-llm/web": client } },
});
