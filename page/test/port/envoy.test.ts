/** The page that Envoy itself has, whose calls Envoy brings to the server. */

import type { Page } from "playwright-core";
import { afterAll, beforeAll, expect, inject, test } from "vitest";
import type { Child } from "../../../clients/typescript/test/support/child.js";
import { startEnvoy } from "../../../clients/typescript/test/support/envoy.js";
import "../support/provided.js";
import { Looking } from "../support/browser.js";

let envoy: Child;
let looking: Looking;

beforeAll(async () => {
  envoy = await startEnvoy(inject("target"));
  looking = await Looking.start({}, "", { page: `http://${envoy.said}/`, target: inject("target") });
});

afterAll(async () => {
  await looking?.close();
  await envoy?.endInput();
});

async function violationsOf(page: Page): Promise<string[]> {
  const said: string[] = [];
  page.on("console", (message) => said.push(message.text()));
  page.on("pageerror", (error) => said.push(String(error)));
  await page.reload();
  return said;
}

test("runs a sentence and shows it, with all that it needs from there alone", async () => {
  const from = new Set<string>();
  looking.page.on("request", (request) => from.add(request.url().split("#")[0] as string));
  const said = await violationsOf(looking.page);
  await looking.is("idle");
  await looking.run();
  expect(await looking.page.innerText(".status")).toContain(`${looking.llm.tokens().shape[1]} tokens`);
  expect(said).toEqual([]);
  const here = `http://${envoy.said}/`;
  expect([...from].filter((url) => !url.startsWith(here) && !url.startsWith("data:"))).toEqual([]);
  expect(from).toContain(`${here}page.js`);
  expect([...from].some((url) => url.startsWith(`${here}transparent_llm.v1.TransparentLlmService/`))).toBe(true);
});
