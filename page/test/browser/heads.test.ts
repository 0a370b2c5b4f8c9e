import { afterAll, beforeAll, expect, test } from "vitest";
import type { HeadScoreKind } from "../../../clients/typescript/src/analyses.js";
import { Looking } from "../support/browser.js";
import { cellWords, clickCell } from "../support/heatmap_cell.js";

const SCORES = "Scores of heads";
const LAYERS = 4;
const KINDS: readonly HeadScoreKind[] = ["induction", "previous", "duplicate", "first", "self", "entropy"];

let looking: Looking;

beforeAll(async () => {
  looking = await Looking.start();
  await looking.run();
  await looking.tab("heads");
});

afterAll(() => looking?.close());

/** Choose a head by its score. */
async function clickScore(layer: number, head: number): Promise<void> {
  await looking.page.waitForSelector('[aria-label="Scores of heads"][aria-busy="false"]');
  await clickCell(looking.page, SCORES, LAYERS - 1 - layer, head);
}

test.each(KINDS)("a click on a head tells its score of %s", async (kind) => {
  await looking.page.selectOption("select[name=score]", kind);
  await looking.page.waitForSelector(`canvas[data-title="Scores of heads: ${kind}"]`);
  for (const [layer, head] of [
    [0, 0],
    [2, 3],
  ] as const) {
    await clickScore(layer, head);
    const scores = await looking.llm.headScores(0, layer, { kind });
    const words = `Layer ${layer}, head ${head}: ${scores.at(head).toFixed(4)}`;
    await expect.poll(() => cellWords(looking.page, SCORES)).toBe(words);
  }
});

test("a click on a head's score shows how it attends", async () => {
  await clickScore(3, 1);
  const title = "Layer 3, head 1: attention";
  await looking.page.waitForSelector(`canvas[data-title="${title}"]`);
  expect(await looking.page.getAttribute('.thumbnail[data-head="1"]', "aria-pressed")).toBe("true");
  await clickCell(looking.page, title, 17, 5);
  const weights = await looking.llm.attentionMatrix(0, 3, 1);
  expect(await cellWords(looking.page, title)).toBe(
    `Head 1: ·king (17) from ·king (5): ${weights.at(17, 5).toFixed(4)}`,
  );
});

test("all heads of a layer stand side by side, and each tells its weights", async () => {
  await looking.page.selectOption("select[name=layer]", "1");
  await looking.page.waitForSelector('.thumbnails[data-layer="1"]');
  const all = await looking.llm.attentionMatrices(0, 1);
  const nTokens = all.shape[1] as number;
  for (const [head, query, key] of [
    [0, 12, 4],
    [3, 18, 2],
  ] as const) {
    await point(head, (key + 0.5) / nTokens, (query + 0.5) / nTokens);
    const end = `: ${all.at(head, query, key).toFixed(4)}`;
    await expect.poll(() => looking.page.textContent(".pair-words")).toMatch(new RegExp(`^Head ${head}: .*${end}$`));
  }
  await looking.page.click('.thumbnail[data-head="2"]');
  const title = "Layer 1, head 2: attention";
  await clickCell(looking.page, title, 9, 8);
  expect(await cellWords(looking.page, title)).toContain(`: ${all.at(2, 9, 8).toFixed(4)}`);
});

test("the value-weighted norms are shown where they are chosen", async () => {
  await looking.page.selectOption("select[name=pattern]", "norms");
  const title = "Layer 1, head 2: value-weighted norms";
  await looking.page.waitForSelector(`canvas[data-title="${title}"]`);
  await clickCell(looking.page, title, 11, 3);
  const norms = await looking.llm.valueWeightedNorms(0, 1);
  expect(await cellWords(looking.page, title)).toContain(`: ${norms.at(2, 11, 3).toFixed(4)}`);
});

test("a pixel of a small picture has the colour of its weight", async () => {
  await looking.page.selectOption("select[name=pattern]", "attention");
  await looking.page.waitForSelector('canvas[data-title="Layer 1, head 2: attention"]');
  const all = await looking.llm.attentionMatrices(0, 1);
  const pixels = await looking.page.$eval('.thumbnail[data-head="0"] canvas', (canvas) => {
    const { width, height } = canvas as HTMLCanvasElement;
    const pen = (canvas as HTMLCanvasElement).getContext("2d") as CanvasRenderingContext2D;
    return Array.from(pen.getImageData(0, 0, width, height).data);
  });
  const nTokens = all.shape[1] as number;
  const brightness = (query: number, key: number): number => pixels[4 * (query * nTokens + key) + 1] as number;
  const keys = Array.from({ length: nTokens }, (_, key) => key);
  const byWeight = [...keys].sort((a, b) => all.at(0, nTokens - 1, b) - all.at(0, nTokens - 1, a));
  const greens = byWeight.map((key) => brightness(nTokens - 1, key));
  expect(greens).toEqual([...greens].sort((a, b) => b - a)); // viridis has more green the brighter it is
  expect(new Set(greens).size).toBeGreaterThan(1);
  expect(pixels[4 * 1 + 3]).toBe(0); // the first position attends to no later one
});

test("a small picture of a long row drops no strong weight", async () => {
  await looking.run("My lord, the king of France is dead. ".repeat(14));
  await looking.page.waitForSelector('canvas[data-title="Layer 0, head 0: attention"]');
  const all = await looking.llm.attentionMatrices(0, 0);
  const [, nTokens] = all.shape as [number, number];
  expect(nTokens).toBeGreaterThan(96);
  const greens = await looking.page.$eval('.thumbnail[data-head="0"] canvas', (canvas) => {
    const { width, height } = canvas as HTMLCanvasElement;
    const pen = (canvas as HTMLCanvasElement).getContext("2d") as CanvasRenderingContext2D;
    const { data } = pen.getImageData(0, 0, width, height);
    return Array.from({ length: height }, (_, row) =>
      Math.max(...Array.from({ length: width }, (_, column) => data[4 * (row * width + column) + 1] as number)),
    );
  });
  expect(greens.length).toBe(96);
  const rows = Array.from({ length: nTokens }, (_, query) => query).filter(
    (query) => query > 0 && all.at(0, query, query - 1) > 0.9,
  );
  expect(rows.length).toBeGreaterThan(nTokens / 2);
  expect(rows.every((query) => (greens[Math.floor((query * 96) / nTokens)] as number) > 200)).toBe(true);
});

/** Point at a share of a small picture's width and height. */
async function point(head: number, across: number, down: number): Promise<void> {
  const canvas = looking.page.locator(`.thumbnail[data-head="${head}"] canvas`);
  const { width, height } = (await canvas.boundingBox()) as { width: number; height: number };
  await canvas.hover({ position: { x: across * width, y: down * height } });
}
