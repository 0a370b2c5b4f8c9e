/** The page, with the client from its sources: three files with fixed names, which the server serves. */

import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const client = (name: string): string => fileURLToPath(new URL(`../clients/typescript/src/${name}`, import.meta.url));

export default defineConfig({
  root: fileURLToPath(new URL(".", import.meta.url)),
  base: "./",
  server: { host: "localhost" },
  resolve: {
    alias: {
      "transparent-llm/web": client("web.ts"),
      "transparent-llm/interventions": client("interventions.ts"),
    },
  },
  build: {
    outDir: "dist",
    target: "es2022",
    modulePreload: false,
    rollupOptions: {
      output: {
        entryFileNames: "page.js",
        assetFileNames: "page[extname]",
        inlineDynamicImports: true,
      },
    },
  },
});
