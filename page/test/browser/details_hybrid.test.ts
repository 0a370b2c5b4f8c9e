/** Details of a layer without attention: what it lacks is said where it would stand, and the rest is there. */

import { readFile } from "node:fs/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { RemoteTransparentLlm } from "../../../clients/typescript/src/node.js";
import { Looking } from "../support/browser.js";
import { best, rankIn, rowsOf, vectorAt } from "../support/details.js";
import { held } from "../support/held.js";
import { HybridModel } from "../support/hybrid_model.js";

const SENTENCE = "the quick brown fox";

let model: HybridModel;
let looking: Looking;

beforeAll(async () => {
  model = await HybridModel.start();
  looking = await Looking.start({ acceptDownloads: true }, "", model);
  await looking.page.fill("textarea[name=sentence]", SENTENCE);
  await looking.page.click("button.primary");
  await looking.is("done");
  await looking.llm.run([SENTENCE]);
});

afterAll(async () => {
  await looking.close();
  await model.close();
});

test("paths go past it, which is said, and those of the layer with attention are all there", async () => {
  const { page, llm } = looking;
  const note = await page.innerText(".graph-side > .gaps");
  expect(note).toContain("Layer 0 shows no paths");
  expect(note).toContain("has no attention output");
  const edges = await edgesOfLayer1(llm);
  const [file] = await Promise.all([page.waitForEvent("download"), page.click('button:text-is("JSON")')]);
  const saved = JSON.parse(await readFile(await file.path(), "utf8"));
  expect(saved.layers_without_edges).toEqual([0]);
  expect(saved.edges).toHaveLength(edges.size);
  for (const { source, target, weight } of saved.edges) {
    expect(weight).toBeCloseTo(edges.get(`${source} ${target}`) as number, 6);
  }
  expect(await page.getAttribute("[data-edges]", "data-edges")).toBe(String(edges.size));
  const [svg] = await Promise.all([page.waitForEvent("download"), page.click('button:text-is("SVG")')]);
  const drawn = await readFile(await svg.path(), "utf8");
  const attended = [...edges.keys()].filter((name) => name.startsWith("I0_"));
  expect(drawn.match(/stroke-dasharray/g)).toHaveLength(attended.length);
});

/** Weights of the edges on the paths to the prediction at the last token, as the server has them. */
async function edgesOfLayer1(llm: RemoteTransparentLlm): Promise<Map<string, number>> {
  const { attention, attentionResidual, ffn, ffnResidual } = await llm.contributionEdges(0, 1, {
    ...{ threshold: 0.04, renormalize: true, dtype: "F32" },
  });
  const last = (llm.tokens().shape[1] as number) - 1;
  const found = new Map<string, number>();
  for (let source = 0; source <= last; source++) {
    const own = source === last ? attentionResidual.at(last) : 0;
    found.set(`I0_${source} A1_${last}`, attention.at(last, source) + own);
  }
  found.set(`A1_${last} M1_${last}`, ffn.at(last)).set(`M1_${last} I1_${last}`, ffn.at(last));
  found.set(`A1_${last} I1_${last}`, ffnResidual.at(last));
  return new Map([...found].filter(([, weight]) => weight > 0));
}

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

test("two runs are compared without it, which is said", async () => {
  const { page } = looking;
  await looking.tab("compare");
  await page.fill('textarea[name="other-sentence"]', "the quick brown dog");
  await page.click('.other-sentence button[type="submit"]');
  await looking.is("done");
  const said = page.locator(".graph-difference p", { hasText: "left out of both: 0." });
  await said.waitFor();
  expect(Number((await said.innerText()).split(" ")[0])).toBeGreaterThan(0);
  expect(await page.locator(".graph-difference tbody", { hasText: "layer 1" }).count()).toBe(1);
  await looking.tab("graph");
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
