/** Details of a layer without attention: what it lacks is said where it would stand, and the rest is there. */

import { afterAll, beforeAll, expect, test } from "vitest";
import { Looking } from "../support/browser.js";
import { best, rankIn, rowsOf, vectorAt } from "../support/details.js";
import { held } from "../support/held.js";
import { HybridModel } from "../support/hybrid_model.js";

const SENTENCE = "the quick brown fox";

let model: HybridModel;
let looking: Looking;

beforeAll(async () => {
  model = await HybridModel.start();
  looking = await Looking.start({}, "", model);
  await looking.page.fill("textarea[name=sentence]", SENTENCE);
  await looking.page.click("button.primary");
  await looking.is("done");
  await looking.llm.run([SENTENCE]);
});

afterAll(async () => {
  await looking.close();
  await model.close();
});

test("it is said why there is no graph", async () => {
  expect(await looking.page.innerText(".graph-side > [role=alert]")).toContain("NotSupported");
});

test("after a layer without attention the gains are since its entry", async () => {
  const { page, llm } = looking;
  await looking.clickNode({ kind: "I", layer: 0, pos: 3 });
  const card = page.locator(".card[data-selection=I0_3]");
  const logits = (await llm.unembed(vectorAt(await llm.residualOut(0), 3), true)).toFloat64();
  const before = (await llm.unembed(vectorAt(await llm.residualIn(0), 3), true)).toFloat64();
  const ids = best(logits).slice(0, 30);
  const gains = (await rowsOf(card, "top", "top", ids)).map(({ gain }) => gain.replace(/ new$/, ""));
  const rose = ids.map((id, i) => rankIn(before, id) - (i + 1));
  expect(gains).toEqual(rose.map((by) => (by > 0 ? `▲ ${by}` : by < 0 ? `▼ ${-by}` : "=")));
  await card.locator("[data-part=block] h3").waitFor();
  expect(await card.locator("[data-part=block] h3").innerText()).toBe("Promoted by L0 › attention and feed-forward");
});

test("the stream after its attention is none", async () => {
  await looking.clickNode({ kind: "A", layer: 0, pos: 3 });
  const card = looking.page.locator(".card[data-selection=A0_3]");
  expect(await card.locator("[data-part=top] [role=alert]").innerText()).toContain("no attention output");
});

test("what it goes on with has no graph that grows, which is said; the text comes anyway", async () => {
  const { page } = looking;
  const generate = await held(page, "Generate");
  await page.click("button[name=go-on]");
  const call = await generate.call;
  await looking.tab("graph");
  expect(await page.innerText(".growing-graph .problem")).toContain("NotSupported");
  await call.continue();
  await looking.is("done");
  expect((await page.inputValue("textarea[name=sentence]")).length).toBeGreaterThan(SENTENCE.length);
  await generate.release();
});
