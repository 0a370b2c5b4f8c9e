/** Draws the pictures of docs/pictures: `npm run pictures`. */

import { afterAll, beforeAll, test } from "vitest";
import { PROJECT } from "../../../clients/typescript/test/support/python.js";
import { Looking, SENTENCE } from "../support/browser.js";
import { addEdit } from "../support/edit_form.js";

const OTHER = SENTENCE.replaceAll("king", "queen");

let looking: Looking;

beforeAll(async () => {
  looking = await Looking.start({ viewport: { width: 1200, height: 980 } });
  await looking.run();
});

afterAll(() => looking?.close());

async function draw(name: string): Promise<void> {
  await looking.page.waitForFunction(() => document.querySelector('[aria-busy="true"]') === null);
  await looking.page.screenshot({ path: `${PROJECT}docs/pictures/page/${name}.png` });
}

test("graph", async () => {
  await looking.clickNode({ kind: "I", layer: 1, pos: 18 });
  await looking.page.mouse.move(0, 0);
  await draw("graph");
});

test("lens", async () => {
  await looking.tab("lens");
  await looking.page.locator(".lens td").nth(2).click();
  await draw("lens");
});

test("compare", async () => {
  await looking.tab("compare");
  await looking.page.fill('textarea[name="other-sentence"]', OTHER);
  await looking.page.click('.other-sentence button[type="submit"]');
  await looking.page.waitForSelector(".comparison");
  await looking.is("done");
  await draw("compare");
});

test("continuations", async () => {
  await addEdit(looking.page, { op: "ablate", site: "head", layer: "0", head: "1", where: "all" });
  await looking.page.fill("input[name=both-tokens]", "12");
  await looking.page.click("button[name=go-on-both]");
  await looking.page.waitForSelector('.both[data-whole="true"]');
  await looking.page.locator(".both").scrollIntoViewIfNeeded();
  await draw("continuations");
});
