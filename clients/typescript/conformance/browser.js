// The driver of the client in browsers: gRPC-Web through Envoy, from a page in headless Chromium.

import { Chromium } from "../test/support/chromium.js";
import { StaticServer } from "../test/support/static_server.js";
import { answerLines } from "./lines.js";
import { version } from "./version.js";

const server = await StaticServer.of(new URL("build/", import.meta.url));
const chromium = await Chromium.start();
try {
  const page = await chromium.open(server.address);
  await page.evaluate(async (ofPackage) => {
    const { operationsOfPage } = await import(new URL("page.js", location.href).href);
    Object.assign(globalThis, { operations: operationsOfPage(ofPackage) });
  }, version);
  await answerLines((line) =>
    page.evaluate((request) => /** @type {any} */ (globalThis).operations.answer(request), line),
  );
} finally {
  await chromium.close();
  await server.close();
}
