// Bundles what runs in the page of the browser driver.

import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

export default defineConfig({
  root: fileURLToPath(new URL(".", import.meta.url)),
  logLevel: "warn",
  publicDir: "public",
  build: {
    outDir: "build",
    emptyOutDir: true,
    minify: false,
    lib: { entry: "page.js", formats: ["es"], fileName: () => "page.js" },
  },
});
