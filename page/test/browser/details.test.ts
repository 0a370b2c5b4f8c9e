/** What is open beside the graph, number by number, against what the client in Node reads of the same run. */

import type { Locator } from "playwright-core";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { Tensor } from "../../../clients/typescript/src/node.js";
import { type EdgeEnds, type GraphNode, nodeName, nodeOf } from "../../src/graph/selection.js";
import { Looking } from "../support/browser.js";
import { best, cellAfter, expectSpoken, rankIn, rowsOf, vectorAt } from "../support/details.js";

let looking: Looking;
let nTokens: number;

beforeAll(async () => {
  looking = await Looking.start();
  await looking.run();
  nTokens = looking.llm.tokens().shape[1] as number;
});

afterAll(async () => {
  await looking.close();
});

async function opened(node: GraphNode): Promise<Locator> {
  const card = looking.page.locator(`.card[data-selection="${nodeName(node)}"]`);
  if ((await card.count()) === 0) {
    await looking.clickNode(node);
  }
  await card.waitFor();
  return card;
}

/** As the page rounds it. */
function rounded(value: number): number {
  return Number(value.toFixed(4));
}

function sumOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}

async function unembedded(vector: Tensor, normalize: boolean): Promise<Float64Array> {
  return (await looking.llm.unembed(vector, normalize)).toFloat64();
}

async function setNormalize(isOn: boolean): Promise<void> {
  await looking.page.setChecked("input[name=normalize]", isOn);
}

describe("a node", () => {
  test("has its top tokens with their gains", async () => {
    const node: GraphNode = { kind: "A", layer: 1, pos: nTokens - 1 };
    const logits = await unembedded(vectorAt(await looking.llm.residualAfterAttn(1), node.pos), true);
    const before = await unembedded(vectorAt(await looking.llm.residualIn(1), node.pos), true);
    const sum = logits.reduce((all, logit) => all + Math.exp(logit), 0);
    const ids = best(logits).slice(0, 30);
    const rows = await rowsOf(await opened(node), "top", "top", ids);
    rows.forEach(({ id, score, probability, gain }, i) => {
      const rose = rankIn(before, id) - (i + 1);
      expect(Math.abs(score - (logits[id] as number))).toBeLessThan(0.002);
      expect(Math.abs(probability - Math.exp(logits[id] as number) / sum)).toBeLessThan(0.0002);
      const sign = rose > 0 ? `▲ ${rose}` : rose < 0 ? `▼ ${-rose}` : "=";
      expect(gain).toBe(rankIn(before, id) > 30 ? `${sign} new` : sign);
    });
    expect(rows.some(({ gain }) => gain.startsWith("▲"))).toBe(true);
  });

  test("that is an embedding was nothing before", async () => {
    const node: GraphNode = { kind: "X", layer: 0, pos: 2 };
    const card = await opened(node);
    const ids = best(await unembedded(vectorAt(await looking.llm.residualIn(0), 2), true)).slice(0, 30);
    const [first] = await rowsOf(card, "top", "top", ids);
    expect(first?.gain).toBe("");
    expect(await card.locator("[data-part=block]").count()).toBe(0);
  });

  test("shows what its block promotes, with the frozen norm or without", async () => {
    const node: GraphNode = { kind: "I", layer: 1, pos: nTokens - 2 };
    const card = await opened(node);
    const { dVocab } = await looking.llm.modelInfo();
    const all = Array.from({ length: dVocab }, (_, id) => id);
    const how = { minusLayer: 1, minusPoint: "after_attn", normalize: "frozen", positions: [node.pos] } as const;
    const { targetLogits } = await looking.llm.layerLens(0, 1, { ...how, tokenIds: all });
    await expectSpoken(card, "block", targetLogits.toFloat64());
    expect(await card.locator("[data-part=block]").innerText()).toMatch(
      /^Promoted by L1 › feed-forward\s+What it added.*frozen/,
    );

    await setNormalize(false);
    const out = await unembedded(vectorAt(await looking.llm.residualOut(1), node.pos), false);
    const middle = await unembedded(vectorAt(await looking.llm.residualAfterAttn(1), node.pos), false);
    const difference = out.map((logit, id) => logit - (middle[id] as number));
    await expectSpoken(card, "block", difference);
    expect(await card.locator("[data-part=block]").innerText()).toContain("not normalized");
    const rows = await rowsOf(card, "top", "top", best(out).slice(0, 30));
    expect(Math.abs((rows[0]?.score ?? 0) - Math.max(...out))).toBeLessThan(0.002);
    expect(await card.locator("[data-part=top] [data-probability]").count()).toBe(0);
    await setNormalize(true);
  });

  test("says where a token stands that was typed, and why others are none", async () => {
    const node: GraphNode = { kind: "I", layer: 0, pos: 5 };
    const card = await opened(node);
    const text = (await looking.llm.toStrTokens(" king")).at(-1) as string;
    const id = await looking.llm.toSingleToken(text);
    const logits = await unembedded(vectorAt(await looking.llm.residualOut(0), 5), true);
    await card.locator("input[name=token-text]").fill(text);
    await card.locator("input[name=token-text]").press("Enter");
    await card.locator("[data-part=chosen] [data-rank]").waitFor();
    const number = async (name: string): Promise<number> =>
      Number(await card.locator(`[data-part=chosen] [data-${name}]`).innerText());
    expect(await number("rank")).toBe(rankIn(logits, id));
    expect(Math.abs((await number("logit")) - (logits[id] as number))).toBeLessThan(0.002);
    const sum = logits.reduce((all, logit) => all + Math.exp(logit), 0);
    expect(Math.abs((await number("probability")) - Math.exp(logits[id] as number) / sum)).toBeLessThan(0.0002);

    await card.locator("input[name=token-text]").fill("my lord the king");
    await card.locator("input[name=token-text]").press("Enter");
    await card.locator("[data-part=chosen] [role=alert]").waitFor();
    await card.locator("input[name=token-text]").fill("");
    await card.locator("input[name=token-text]").press("Enter");
  });
});

/** Click an edge of the page's own list: of those with such words the first, or the one of that index. */
async function openEdge(words: RegExp, index = 0): Promise<{ card: Locator; ends: EdgeEnds }> {
  const { page } = looking;
  await page.$eval("details.edge-table", (details) => {
    (details as HTMLDetailsElement).open = true;
  });
  await page.locator(".edge-table button").filter({ hasText: words }).nth(index).click();
  const card = page.locator(".card").first();
  const name = (await card.getAttribute("data-selection")) ?? "";
  const [source = "", target = ""] = name.split("-");
  return { card, ends: { source: nodeOf(source), target: nodeOf(target) } };
}

describe("an edge between two positions", () => {
  let card: Locator;
  let layer: number;
  let [target, source]: [number, number] = [0, 0];

  beforeAll(async () => {
    const attention = /\((?<source>\d+)\) → after attention of layer \d+ at .*\((?!\k<source>\))\d+\)$/;
    let index = 0;
    do {
      const { ends, card: opened } = await openEdge(attention, index++);
      card = opened;
      [layer, target, source] = [ends.target.layer, ends.target.pos, ends.source.pos];
    } while ((await strongest()) === 0); // which would be chosen by anybody
    expect(source).toBeLessThan(target);
  });

  beforeEach(async () => {
    await card.locator("[data-choice]").first().waitFor();
  });

  /** The contributions of all heads along the edge. */
  async function shares(): Promise<number[]> {
    const { heads } = await looking.llm.attnContributions(0, layer);
    return Array.from({ length: heads.shape[2] as number }, (_, head) => heads.at(target, source, head));
  }

  async function strongest(): Promise<number> {
    const all = await shares();
    return all.indexOf(Math.max(...all));
  }

  test("lists its heads, and the strongest is chosen", async () => {
    const expected = (await shares()).map((share) => share.toFixed(4));
    expect(await card.locator("[data-share]").allInnerTexts()).toEqual(expected);
    const pressed = card.locator("[data-choice][aria-pressed=true]");
    expect(await pressed.getAttribute("data-choice")).toBe(String(await strongest()));
    expect(await card.locator("[data-residual]").count()).toBe(0);
  });

  test("shows what the head looks at", async () => {
    const head = await strongest();
    const matrix = await looking.llm.attentionMatrix(0, layer, head);
    const title = `Attention of layer ${layer}, head ${head}`;
    const [row, column] = [nTokens - 1, nTokens - 3];
    const shown = await cellAfter(card, title, "ArrowLeft", "ArrowLeft");
    expect(shown).toEqual({ row, column, value: rounded(matrix.at(row, column)) });
    const future = await cellAfter(card, title, "ArrowUp", "ArrowUp", "ArrowUp");
    expect(future).toEqual({ row: row - 3, column, value: Number.NaN });
  });

  test("shows what the head brings", async () => {
    const head = await strongest();
    const { heads } = await looking.llm.attnContributions(0, layer);
    const [row, column] = [nTokens - 1, nTokens - 2];
    const shown = await cellAfter(card, `Contribution of layer ${layer}, head ${head}`, "ArrowLeft");
    expect(shown).toEqual({ row, column, value: rounded(heads.at(row, column, head)) });
  });

  test("shows what the head promotes at its target", async () => {
    const output = await looking.llm.attentionOutput(0, layer, target, await strongest());
    await expectSpoken(card, "spoken", await unembedded(output, true));
    await setNormalize(false);
    await expectSpoken(card, "spoken", await unembedded(output, false));
    await setNormalize(true);
  });

  test("shows all heads together", async () => {
    const all = await shares();
    const button = card.locator("[data-choice=all]");
    await button.click();
    expect(await button.locator("[data-note]").innerText()).toBe(sumOf(all).toFixed(4));
    const [nHeads, matrices] = [all.length, await looking.llm.attentionMatrices(0, layer)];
    const mean = await cellAfter(card, `mean over ${nHeads} heads`, "ArrowDown", "ArrowDown", "ArrowDown", "ArrowLeft");
    const ofHeads = all.map((_, head) => matrices.at(head, mean.row, mean.column));
    expect(Math.abs(mean.value - sumOf(ofHeads) / nHeads)).toBeLessThan(0.0001);
    const { heads } = await looking.llm.attnContributions(0, layer);
    const sum = await cellAfter(card, `sum over ${nHeads} heads`, "ArrowLeft");
    const given = all.map((_, head) => heads.at(sum.row, sum.column, head));
    expect(Math.abs(sum.value - sumOf(given))).toBeLessThan(0.0001);
    const output = await looking.llm.attentionOutput(0, layer, target, null);
    await expectSpoken(card, "spoken", await unembedded(output, true));
  });
});

test("an edge from a position to itself has what was there before", async () => {
  const ends: EdgeEnds = {
    source: { kind: "I", layer: 0, pos: nTokens - 1 },
    target: { kind: "A", layer: 1, pos: nTokens - 1 },
  };
  const [[x1, y1], [x2, y2]] = [await looking.placeOf(ends.source), await looking.placeOf(ends.target)];
  await looking.clickAt([(x1 + x2) / 2, (y1 + y2) / 2]);
  const card = looking.page.locator(`.card[data-selection="${nodeName(ends.source)}-${nodeName(ends.target)}"]`);
  const { residual } = await looking.llm.attnContributions(0, 1);
  expect(await card.locator("[data-residual]").innerText()).toBe(residual.at(nTokens - 1).toFixed(4));
});

describe("a feed-forward part", () => {
  let card: Locator;
  let node: GraphNode;

  beforeAll(async () => {
    const { ends, card: opened } = await openEdge(/→ feed-forward of layer \d+/);
    [card, node] = [opened, ends.target];
    await card.locator("[data-choice]").first().waitFor();
  });

  test("lists the neurons that contribute most, with their activations", async () => {
    const { layer, pos } = node;
    const { ids, values } = await looking.llm.neuronContributions(0, layer, pos, { k: 20 });
    const activations = await looking.llm.neuronActivations(0, layer, pos);
    const neurons = Array.from({ length: 20 }, (_, i) => [ids.at(i), values.at(i)] as const);
    const expected = neurons.map(([id, share]) => [
      `Neuron ${id}`,
      share.toFixed(4),
      `a ${activations.at(id).toFixed(3)}`,
    ]);
    const choices = card.locator("[data-choice]:not([data-choice=all])");
    const shown = await choices.evaluateAll((all) =>
      all.map((button) => [...button.querySelectorAll("span:not(.dot)")].map((part) => part.textContent)),
    );
    expect(shown).toEqual(expected);
  });

  test("shows what it promotes as a whole", async () => {
    expect(await card.locator("[data-choice=all]").getAttribute("aria-pressed")).toBe("true");
    const output = vectorAt(await looking.llm.ffnOut(node.layer), node.pos);
    await expectSpoken(card, "spoken", await unembedded(output, true));
  });

  test("shows what a neuron promotes", async () => {
    const { ids } = await looking.llm.neuronContributions(0, node.layer, node.pos, { k: 3 });
    const neuron = ids.at(2);
    await card.locator(`[data-choice="${neuron}"]`).click();
    await expectSpoken(card, "spoken", await unembedded(await looking.llm.neuronOutput(node.layer, neuron), true));
    expect(await card.locator("[data-part=spoken] h3").innerText()).toContain(`neuron ${neuron}`);
  });
});
