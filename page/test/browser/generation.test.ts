/** The model goes on with a sentence, live, and what it read for it can be looked at. */

import { afterAll, beforeAll, expect, test } from "vitest";
import { Looking, SENTENCE } from "../support/browser.js";

let looking: Looking;

beforeAll(async () => {
  looking = await Looking.start();
});

afterAll(() => looking?.close());

test("what is written is what the client in Node is told, and it is shown as a run", async () => {
  let written = "";
  const onStep = ([token]: readonly ({ readonly text: string } | undefined)[]): void => {
    written += token?.text;
  };
  await looking.llm.generate([SENTENCE], { maxNewTokens: 6, onStep });
  const { page } = looking;
  await page.fill("textarea[name=sentence]", SENTENCE);
  await page.fill("input[name=new-tokens]", "6");
  await page.click("button[name=go-on]");
  await looking.is("done");
  expect(await page.inputValue("textarea[name=sentence]")).toBe(SENTENCE + written);
  expect(await page.innerText(".status")).toContain(`${looking.llm.tokens().shape[1]} tokens`);
  const other = await Looking.start({}, new URL(page.url()).hash);
  await other.is("done");
  expect(await other.page.getAttribute("[data-edges]", "data-edges")).toBe(
    await page.getAttribute("[data-edges]", "data-edges"),
  );
  await other.close();
});

test("it says what it is at, and is stopped by a click", async () => {
  const { page } = looking;
  await page.fill("textarea[name=sentence]", SENTENCE);
  await page.fill("input[name=new-tokens]", "200");
  await page.click("button[name=go-on]");
  await page.waitForSelector('.status:has-text("Token ")');
  await page.click('button:text-is("Stop")');
  await looking.is("idle");
  expect(await page.inputValue("textarea[name=sentence]")).toBe(SENTENCE);
});
