/** A page that is looked at while things happen: layers arrive, people stop, a server goes and comes back. */

import { afterAll, beforeAll, expect, test } from "vitest";
import { Looking, SENTENCE } from "../support/browser.js";
import { held } from "../support/held.js";

const LONGER = `${SENTENCE}, and then I shall go`;

let looking: Looking;

beforeAll(async () => {
  looking = await Looking.start();
  await looking.run();
});

afterAll(() => looking?.close());

test("layers are painted from the bottom up while others are still on their way", async () => {
  const third = await held(looking.page, "AttnContributions", 3);
  await looking.page.fill("textarea[name=sentence]", LONGER);
  await looking.page.click("button.primary");
  const call = await third.call;
  await looking.page.waitForSelector('.graph canvas[data-layers="2"]');
  expect(await looking.page.innerText(".status")).toMatch(/Layer 2 of \d+/);
  expect(await looking.page.getAttribute(".status progress", "value")).toBe("0.5");
  await call.continue();
  await looking.is("done");
  await third.release();
});

test("a run is stopped by a click, and what was shown before stays", async () => {
  const run = await held(looking.page, "Run");
  await looking.page.fill("textarea[name=sentence]", "so it goes on");
  await looking.page.click("button.primary");
  const call = await run.call;
  const isOver = looking.page.waitForEvent("requestfailed", (request) => request === call.request());
  await looking.page.click('button:text-is("Stop")');
  await looking.is("idle");
  expect(await looking.page.innerText(".status")).toContain("Stopped.");
  await isOver; // the call itself was cancelled, not only its answer left unread
  expect(await looking.page.$$eval(".graph canvas", (all) => all.length)).toBe(1);
  await call.abort().catch(() => {});
  await run.release();
});

test("only the last of several runs is shown", async () => {
  const first = await held(looking.page, "Run");
  await looking.page.fill("textarea[name=sentence]", "so it goes on");
  await looking.page.click("button.primary");
  const call = await first.call;
  await first.release();
  await looking.run(SENTENCE);
  await call.continue().catch(() => {});
  expect(await looking.page.innerText(".status")).toContain(`${looking.llm.tokens().shape[1]} tokens`);
});

test("a server that is gone while something is read of it is told, and read again when it is back", async () => {
  await looking.page.route(/\/(transparent_llm|grpc)\./, (route) => route.abort("connectionrefused"));
  await looking.tab("lens");
  await looking.page.waitForSelector('.status [role="alert"]:text("does not answer")', { timeout: 15_000 });
  await looking.page.unrouteAll();
  await looking.page.waitForSelector(".lens td[data-position]", { timeout: 15_000 });
  await expect.poll(() => looking.page.innerText(".status"), { timeout: 15_000 }).not.toContain("does not answer");
});

test("a server that is gone is told; what it was asked is asked again when it is back", async () => {
  await looking.page.route(/\/(transparent_llm|grpc)\./, (route) => route.abort("connectionrefused"));
  await looking.page.click("button.primary");
  await looking.is("failed");
  expect(await looking.page.innerText(".status")).toContain("does not answer");
  await looking.page.unrouteAll();
  await looking.page.waitForFunction(
    () => !document.querySelector(".status")?.textContent?.includes("does not answer"),
  );
  await looking.page.click("button.primary");
  await looking.is("done");
});
