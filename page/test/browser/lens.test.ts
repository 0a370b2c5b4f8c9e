import { readFile } from "node:fs/promises";
import type { Locator } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { LayerLens } from "../../../clients/typescript/src/analyses.js";
import { visible } from "../../src/shown/token_text.js";
import { Looking } from "../support/browser.js";

let looking: Looking;
let ids: number[];

beforeAll(async () => {
  looking = await Looking.start();
  await looking.run();
  await looking.tab("lens");
  ids = Array.from(looking.llm.tokens().data, Number);
});

afterAll(() => looking?.close());

function cell(layer: number, position: number): Locator {
  return looking.page.locator(`.lens tr[data-layer="${layer}"] > td[data-position="${position}"]`);
}

/** The cell that is open, in numbers. */
async function opened(layer: number, position: number, value: string): Promise<string | null> {
  await looking.page.waitForSelector(`.lens-details[data-place="${layer},${position}"]`);
  return looking.page.textContent(`.lens-details [data-value="${value}"]`);
}

/** All positions at once, as the page reads them: fewer would be rounded otherwise. */
async function read(layer: number, tokenIds: number[] = []): Promise<LayerLens> {
  return looking.llm.layerLens(0, layer, { k: 5, withKl: true, tokenIds });
}

/** The probability of a logit. */
function shareOf(lens: LayerLens, position: number, logit: number): number {
  return Math.exp(logit - lens.logsumexp.at(position));
}

test("a cell has the most likely token and its share", async () => {
  const lens = await read(2);
  const id = lens.topIds.at(7, 0);
  const [token = ""] = await looking.llm.tokensToStrings([id]);
  const share = shareOf(lens, 7, lens.topLogits.at(7, 0));
  await cell(2, 7).waitFor();
  expect(await cell(2, 7).locator(".token").textContent()).toBe(visible(token));
  expect(await cell(2, 7).locator(".lens-share").textContent()).toBe(`${(100 * share).toFixed(1)}%`);
});

test("a click on a cell opens its numbers, with those of the token that really follows", async () => {
  await cell(1, 9).click();
  const lens = await read(1, [ids[10] as number]);
  expect(await opened(1, 9, "entropy")).toBe(lens.entropy.at(9).toFixed(4));
  expect(await opened(1, 9, "kl")).toBe(lens.kl?.at(9).toFixed(4));
  expect(await opened(1, 9, "rank")).toBe(String(lens.targetRanks.at(9, 0) + 1));
  const probability = shareOf(lens, 9, lens.targetLogits.at(9, 0));
  expect(await opened(1, 9, "probability")).toBe(probability.toFixed(4));
  const shown = await looking.page.$$eval(".lens-details tbody tr", (rows) =>
    rows.map((row) => [row.getAttribute("data-token"), row.lastElementChild?.textContent]),
  );
  const expected = [0, 1, 2, 3, 4].map((rank) => [
    String(lens.topIds.at(9, rank)),
    lens.topLogits.at(9, rank).toFixed(4),
  ]);
  expect(shown).toEqual(expected);
});

test("arrow keys go from cell to cell, and are told", async () => {
  await cell(1, 9).click();
  await looking.page.keyboard.press("ArrowUp");
  await looking.page.keyboard.press("ArrowRight");
  await looking.page.mouse.move(0, 0);
  const lens = await read(2);
  expect(await opened(2, 10, "entropy")).toBe(lens.entropy.at(10).toFixed(4));
  expect(await looking.page.textContent(".lens-words")).toContain(`entropy ${lens.entropy.at(10).toFixed(4)}`);
  expect(await looking.page.$$eval(".lens td[tabindex='0']", (stops) => stops.length)).toBe(1);
});

test("the model's own log-probability and rank of each next token stand below", async () => {
  const { logprobs, ranks } = await looking.llm.tokenLogprobs(0);
  for (const [name, words] of [
    ["logprob", (position: number) => logprobs.at(position).toFixed(4)],
    ["rank", (position: number) => String(ranks.at(position) + 1)],
  ] as const) {
    const shown = await looking.page.$$eval(`[data-next="${name}"] td`, (cells) => cells.map((of) => of.textContent));
    expect(shown).toEqual([...ids.slice(1).map((_, position) => words(position)), "–"]);
  }
});

test("a typed token is looked for everywhere, and colours by its rank", async () => {
  await looking.page.selectOption("select[name=coloured-by]", "rank");
  await looking.page.fill("input[name=chosen]", " king");
  await looking.page.press("input[name=chosen]", "Enter");
  const id = await looking.llm.toSingleToken(" king");
  const rank = (await read(0, [id])).targetRanks.at(16, 0) + 1;
  await cell(0, 16).locator(`.lens-value:text-is("#${rank}")`).waitFor();
  await cell(0, 16).click();
  expect(await opened(0, 16, "rank")).toBe(String(rank));
});

test("a text that is several tokens is refused, and says which", async () => {
  await looking.page.fill("input[name=chosen]", "king of");
  await looking.page.press("input[name=chosen]", "Enter");
  await looking.page.waitForSelector('.token-field .problem:has-text("tokens, not one")');
  await looking.page.fill("input[name=chosen]", "");
  await looking.page.press("input[name=chosen]", "Enter");
});

test("another point of the layer is read when it is chosen", async () => {
  await looking.page.selectOption("select[name=point]", "in");
  const lens = await looking.llm.layerLens(0, 0, { point: "in", k: 1, withKl: true });
  await cell(3, 3).waitFor();
  await cell(0, 3).click();
  expect(await opened(0, 3, "kl")).toBe(lens.kl?.at(3).toFixed(4));
  await looking.page.selectOption("select[name=point]", "out");
  await cell(3, 3).waitFor();
});

test("the grid is saved as numbers", async () => {
  const [asJson, asCsv] = [await saved("JSON"), await saved("CSV")];
  const lens = await read(3, [ids[5] as number]);
  const { entropy, chosen } = JSON.parse(asJson).layers[3][4];
  expect([entropy, chosen.rank]).toEqual([lens.entropy.at(4), lens.targetRanks.at(4, 0)]);
  const lines = asCsv.trimEnd().split("\r\n");
  expect(lines.length).toBe(1 + 4 * ids.length);
  expect(lines[1 + 3 * ids.length + 4]).toContain(`,${lens.entropy.at(4)},`);
});

async function saved(name: string): Promise<string> {
  const [download] = await Promise.all([
    looking.page.waitForEvent("download"),
    looking.page.click(`[aria-label="Save the lens"] button:text-is("${name}"):enabled`),
  ]);
  return readFile(await download.path(), "utf8");
}
