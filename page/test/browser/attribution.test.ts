import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { signed } from "../../src/shown/signed.js";
import { Looking } from "../support/browser.js";
import { cellWords, clickCell } from "../support/heatmap_cell.js";

const TERMS = "Terms of";
const LAYERS = 4;
const HEADS = 4;
const FFN = HEADS + 1;

let looking: Looking;
let last: number;
/** The most likely next token at the end. */
let top: number;

beforeAll(async () => {
  looking = await Looking.start();
  await looking.run();
  last = (looking.llm.tokens().shape[1] as number) - 1;
  top = (await looking.llm.layerLens(0, LAYERS - 1, { positions: [last], k: 1 })).topIds.at(0, 0);
});

afterAll(() => looking?.close());

/** The last position and its top token, all layers there. */
beforeEach(async () => {
  await looking.tab("lens");
  await looking.tab("attribution");
  await areAllThere();
});

async function areAllThere(): Promise<void> {
  await looking.page.waitForSelector('[data-value="parts-difference"]');
}

/** The number in the row of a term. */
async function term(id: string): Promise<string | null> {
  return looking.page.locator(`.terms tr[data-term="${id}"] td`).first().textContent();
}

/** A number as the page shows it, which a term of it may differ from in the last digit: it is rounded elsewhere. */
function numberOf(shown: string | null): number {
  return Number((shown ?? "").replace("−", "-").replace("+", ""));
}

test("the terms are those of the model's top token, and add up to its logit", async () => {
  const terms = await looking.llm.logitTerms(0, last, top);
  expect(await term("embedding")).toBe(signed(terms.embedding.at()));
  for (let layer = 0; layer < LAYERS; layer++) {
    expect(await term(`layer-${layer}`)).toBe(signed(terms.layers.at(layer)));
  }
  expect(await term("norm-bias")).toBe(signed(terms.normBias.at()));
  const logit = (await looking.llm.logits()).at(0, last, top);
  expect(await term("logit")).toBe(signed(logit));
  expect(numberOf(await term("sum"))).toBeCloseTo(logit, 3);
  expect(Math.abs(numberOf(await term("difference")))).toBeLessThan(1e-3);
  expect(Number(await looking.page.textContent('[data-value="parts-difference"]'))).toBeLessThan(1e-3);
});

test("a click on a head tells its term, and what it took from each token", async () => {
  const [layer, head] = [3, 1];
  await clickCell(looking.page, TERMS, LAYERS - 1 - layer, head);
  const { heads } = await looking.llm.logitAttribution(0, layer, last, top);
  expect(await cellWords(looking.page, TERMS)).toBe(`Layer ${layer}, head ${head}: ${signed(heads.at(head))}`);
  await looking.page.waitForSelector('.terms caption:text-is("Layer 3, head 1: from each token")');
  const sources = await looking.llm.sourceAttribution(0, layer, last, top);
  for (let source = 0; source <= last; source++) {
    expect(await term(`source-${source}`)).toBe(signed(sources.at(head, source)));
  }
  expect(numberOf(await term("source-sum"))).toBeCloseTo(heads.at(head), 3);
});

test("a click on the feed-forward part opens its neurons", async () => {
  await clickCell(looking.page, TERMS, LAYERS - 1 - 1, FFN);
  const { ffn, ffnBias } = await looking.llm.logitAttribution(0, 1, last, top);
  expect(await cellWords(looking.page, TERMS)).toBe(`Layer 1, ffn: ${signed(ffn.at())}`);
  const { ids, values, rest } = await looking.llm.neuronAttribution(0, 1, last, top, { k: 20 });
  await looking.page.waitForSelector(`.terms tr[data-term="neuron-${ids.at(0)}"]`);
  const shown = await looking.page.$$eval(".terms tr[data-term^='neuron-'] td:nth-child(2)", (cells) =>
    cells.map((cell) => cell.textContent),
  );
  const expected = [...values.toFloat64(), rest.at()].map(signed);
  expect(shown.slice(0, expected.length)).toEqual(expected);
  expect(await term("ffn-bias")).toBe(signed(ffnBias.at()));
  expect(numberOf(await term("neuron-sum"))).toBeCloseTo(ffn.at(), 3);
});

test("the difference of two tokens at another position is taken apart", async () => {
  const [king, lord] = [await looking.llm.toSingleToken(" king"), await looking.llm.toSingleToken(" lord")];
  await looking.page.selectOption("select[name=position]", "4");
  await looking.page.fill("input[name=token]", " king");
  await looking.page.fill("input[name=minus-token]", " lord");
  await looking.page.press("input[name=minus-token]", "Enter");
  await looking.page.waitForSelector('.terms caption:has-text("\\" king\\" minus \\" lord\\" at position 4")');
  await areAllThere();
  const terms = await looking.llm.logitTerms(0, 4, king, { minusToken: lord });
  expect(await term("layer-2")).toBe(signed(terms.layers.at(2)));
  const logits = await looking.llm.logits();
  expect(numberOf(await term("logit"))).toBeCloseTo(logits.at(0, 4, king) - logits.at(0, 4, lord), 3);
  const row = LAYERS - 1 - 2;
  await clickCell(looking.page, TERMS, row, 0);
  const { heads } = await looking.llm.logitAttribution(0, 2, 4, king, { minusToken: lord });
  expect(await cellWords(looking.page, TERMS)).toBe(`Layer 2, head 0: ${signed(heads.at(0))}`);
});

test("cells can be opened with keys alone", async () => {
  await looking.page.focus('[aria-label^="Terms of"]');
  await looking.page.keyboard.press("ArrowUp");
  await looking.page.keyboard.press("Enter");
  await looking.page.waitForSelector('.terms caption:text-is("Layer 1: the 20 neurons with the largest terms")');
});
