import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import {
  add,
  type Edit,
  EVERYWHERE,
  head,
  neurons,
  patch,
  residualOut,
  unembedding,
  zero,
} from "../../../clients/typescript/src/interventions.js";
import type { RemoteTransparentLlm } from "../../../clients/typescript/src/node.js";
import { visible } from "../../src/shown/token_text.js";
import { Looking, SENTENCE } from "../support/browser.js";
import { clientGraph } from "../support/client_graph.js";
import { addEdit } from "../support/edit_form.js";
import { cellWords, clickCell } from "../support/heatmap_cell.js";

const OTHER = "My lord, the queen of France is dead; my lord, the queen of";
const RUN = /TransparentLlmService\/Run$/;
const SHORTER = "The king of";

let looking: Looking;

beforeAll(async () => {
  looking = await Looking.start();
  await looking.run();
  await looking.tab("compare");
});

afterAll(() => looking?.close());

beforeEach(async () => {
  const remove = looking.page.locator('button[aria-label^="Remove: "]');
  while ((await remove.count()) > 0) {
    await remove.first().click();
  }
});

async function runEdits(): Promise<void> {
  await looking.page.click(".run-edits");
}

/** The client's run with edits; the page must come to the very same. */
async function edited(edits: readonly Edit[]): Promise<RemoteTransparentLlm> {
  const llm = looking.llm.copy();
  await llm.run([SENTENCE], { edits });
  await shows(llm);
  return llm;
}

/** Wait until a run is what a page compares with, and all of it is there. */
async function shows(llm: RemoteTransparentLlm, on: Looking = looking): Promise<void> {
  await on.page.waitForSelector(`.comparison[data-run="${llm.runId}"]`, { timeout: 30_000 });
  await on.is("done");
}

async function compareOther(sentence: string): Promise<RemoteTransparentLlm> {
  await looking.page.fill('textarea[name="other-sentence"]', sentence);
  await looking.page.click('.other-sentence button[type="submit"]');
  const llm = looking.llm.copy();
  await llm.run([sentence]);
  await shows(llm);
  return llm;
}

/** Of the next token, of the model's own output. */
async function probabilities(llm: RemoteTransparentLlm, pos: number): Promise<Float64Array> {
  const logits = await llm.logits({ dtype: "F32", slices: { pos: { start: pos, stop: pos + 1 } } });
  return softmax(logits.toFloat64());
}

function softmax(logits: Float64Array): Float64Array {
  const most = logits.reduce((a, b) => Math.max(a, b));
  const powers = logits.map((logit) => Math.exp(logit - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

function best(numbers: Float64Array): number {
  return numbers.reduce((top, number, i) => (number > (numbers[top] as number) ? i : top), 0);
}

async function texts(selector: string): Promise<string[]> {
  await looking.page.locator(selector).first().waitFor();
  return (await looking.page.locator(selector).allInnerTexts()).map((text) => text.trim());
}

test("an ablated head: its report, what both runs say next, and the divergence", async () => {
  await addEdit(looking.page, { op: "ablate", site: "head", layer: "1", head: "2", where: "all" });
  expect(await texts(".edit-list li")).toEqual([expect.stringContaining("Ablate head 2 of layer 1 at all tokens")]);
  await runEdits();
  const llm = await edited([zero(head(1, 2), EVERYWHERE)]);

  const [effect] = llm.effects();
  expect(effect?.changed).toBeGreaterThan(0);
  expect(await texts(".effects tbody th, .effects tbody td")).toEqual([
    effect?.edit,
    ...[effect?.selected, effect?.changed].map(String),
    ...[effect?.deltaNorm, effect?.norm, effect?.maxDelta].map((norm) => norm?.toPrecision(4)),
  ]);

  const [row] = await llm.compare(looking.llm);
  expect(await texts(".divergence output")).toEqual([row?.kl.toFixed(6)]);
  expect(await texts(".divergence .token")).toEqual([
    visible(row?.otherTopString ?? ""),
    visible(row?.topString ?? ""),
  ]);

  const last = (looking.llm.tokens().shape[1] as number) - 1;
  const [before, after] = [await probabilities(looking.llm, last), await probabilities(llm, last)];
  const top = best(before);
  const [string] = await looking.llm.tokensToStrings([top]);
  const cells = await texts(".predictions tbody tr:first-child > *");
  expect(cells.slice(0, 2)).toEqual([visible(string ?? ""), `${before[top]?.toFixed(4)} #1`]);
  expect(cells[2]?.split(" ")[0]).toBe(after[top]?.toFixed(4));
  const tops = (await texts(".predictions .is-top")).map((text) => text.split(" ")[0]);
  expect(tops).toContain(after[best(after)]?.toFixed(4));
});

test("a cell of the lens says both probabilities, and the largest difference of the graphs comes first", async () => {
  await addEdit(looking.page, { op: "ablate", site: "head", layer: "0", head: "1", where: "all" });
  await runEdits();
  const llm = await edited([zero(head(0, 1), EVERYWHERE)]);
  const nTokens = llm.tokens().shape[1] as number;
  const pos = nTokens - 1;
  const top = best(await probabilities(looking.llm, pos));

  await looking.page.locator('.lens-difference [role="application"]').press("ArrowUp");
  const [p, q] = await Promise.all([looking.llm, llm].map((each) => lensProbability(each, 1, pos, top)));
  const said = await looking.page.innerText(".lens-difference output");
  expect(said).toMatch(/^layer 1, /);
  expect(said).toContain(`(${pos}): `);
  expect(said).toContain(`${p?.toFixed(4)} → ${q?.toFixed(4)}`);

  const [before, after] = [await weights(looking.llm), await weights(llm)];
  const change = (name: string): number => (after.get(name) ?? 0) - (before.get(name) ?? 0);
  const most = Math.max(...[...before.keys(), ...after.keys()].map((name) => Math.abs(change(name))));
  const first = looking.page.locator(".difference-table tbody tr").first();
  const name = (await first.getAttribute("data-edge")) ?? "";
  expect(most).toBeGreaterThan(0.01);
  expect(Math.abs(change(name))).toBeCloseTo(most, 5);
  expect(await first.innerText()).toContain(most.toFixed(4));
});

async function lensProbability(llm: RemoteTransparentLlm, layer: number, pos: number, token: number): Promise<number> {
  const stream = await llm.residualOut(layer, { dtype: "F32", slices: { pos: { start: pos, stop: pos + 1 } } });
  const logits = await llm.unembed(stream.toFloat32(), true, { dtype: "F32" });
  return softmax(logits.toFloat64())[token] as number;
}

/** Of the paths to the last token, by the server's own edges. */
async function weights(llm: RemoteTransparentLlm): Promise<Map<string, number>> {
  const graph = (await clientGraph(llm)).paths([-1]);
  return new Map(graph.edges().map(({ source, target, weight }) => [`${source}-${target}`, weight]));
}

test("another sentence stands beside it, a patch comes from there, and the link brings it all back", async () => {
  const source = await compareOther(OTHER);
  expect(await looking.page.locator(".effects").count()).toBe(0);
  const [row] = await source.compare(looking.llm);
  expect(await texts(".divergence output")).toEqual([row?.kl.toFixed(6)]);
  expect(await texts(".token-rows tr:nth-child(2) td")).toContainEqual(expect.stringMatching(/queen.*≠/));

  await addEdit(looking.page, { op: "patch", site: "residual_out", layer: "0", where: "chosen", positions: "5" });
  await runEdits();
  const llm = await edited([patch(residualOut(0), source, { positions: [5], rows: "all" })]);
  const kl = (await llm.compare(looking.llm))[0]?.kl.toFixed(6);
  expect(await texts(".divergence output")).toEqual([kl]);

  const again = await Looking.start({}, new URL(looking.page.url()).hash);
  try {
    await again.is("done");
    await again.tab("compare");
    await shows(llm, again);
    expect(await again.page.innerText(".edit-list li")).toContain("Patch the stream after layer 0 at 5");
    expect(await again.page.innerText(".divergence output")).toBe(kl);
  } finally {
    await again.close();
  }
});

test("a stream is steered toward a token", async () => {
  await addEdit(looking.page, {
    op: "steer",
    site: "residual_out",
    layer: "1",
    where: "last",
    token: " king",
    factor: "0.5",
  });
  await runEdits();
  const token = await looking.llm.toSingleToken(" king");
  const where = { factor: 0.5, relative: true, positions: "last", rows: "all" } as const;
  await edited([add(residualOut(1), unembedding(token), where)]);
  expect(await texts(".edit-list li")).toEqual([
    expect.stringContaining("Steer the stream after layer 1 at the last token toward “·king”, 0.5 times its norm"),
  ]);
});

test("an edit that cannot be made is told beside the list, in the server's words", async () => {
  await addEdit(looking.page, { op: "ablate", site: "neurons", layer: "0", neurons: "999999", where: "all" });
  await runEdits();
  const refused = looking.llm.copy().run([SENTENCE], { edits: [zero(neurons(0, [999999]), EVERYWHERE)] });
  const words = await refused.then(
    () => "it was made",
    (error: Error) => error.message,
  );
  expect(words).toContain("999999");
  expect(await texts(".edit-list .problem p:nth-of-type(1)")).toEqual([words]);
  await looking.is("failed");

  await looking.page.fill('.edit-form [name="neurons"]', "3, x");
  await looking.page.click('.edit-form button[type="submit"]');
  expect(await texts(".edit-form .problem")).toEqual([expect.stringContaining("“x”")]);
});

test("a sentence that is too long is told beside its field, and what was compared stays", async () => {
  const sentence = "king ".repeat(5000);
  await looking.page.fill('textarea[name="other-sentence"]', sentence);
  await looking.page.click('.other-sentence button[type="submit"]');
  const words = await looking.llm
    .copy()
    .run([sentence])
    .catch((error: Error) => error.message);
  expect(await texts(".other-sentence .problem p:nth-of-type(1)")).toEqual([words]);
  expect(await looking.page.locator(".edit-list .problem").count()).toBe(0);
  expect(await looking.page.locator(".comparison").count()).toBe(1);
});

test("what is stopped leaves what was compared, and no problem", async () => {
  const before = await looking.page.getAttribute(".comparison", "data-run");
  let arrived = (): void => {};
  const asked = new Promise<void>((resolve) => {
    arrived = resolve;
  });
  await looking.page.route(RUN, () => arrived()); // it gets no answer
  await addEdit(looking.page, { op: "ablate", site: "attn_out", layer: "0", where: "all" });
  await runEdits();
  await asked;
  await looking.page.click('button:text-is("Stop")');
  await looking.is("idle");
  await looking.page.unroute(RUN);
  expect(await looking.page.getAttribute(".comparison", "data-run")).toBe(before);
  expect(await looking.page.locator(".edit-list .problem").count()).toBe(0);
});

test("an edit without an effect is said to have none", async () => {
  await addEdit(looking.page, { op: "scale", site: "ffn_out", layer: "0", where: "last", factor: "1" });
  await runEdits();
  expect(await texts(".effects strong")).toEqual(["no effect"]);
});

test("rows of different lengths: what has a partner is compared", async () => {
  const llm = await compareOther(SHORTER);
  const lengths = [looking.llm, llm].map((each) => each.tokens().shape[1] as number);
  expect(await looking.page.innerText(".comparison > p")).toContain(`${lengths[0]} and ${lengths[1]} tokens`);
  await looking.page.waitForSelector(".predictions tbody tr");
  await looking.page.waitForSelector(".lens-difference canvas");
  await looking.page.waitForSelector(".difference-drawing");

  await looking.page.selectOption('[name="aligned-by"]', "first");
  await looking.page.locator(".comparison .placeholder", { hasText: "has no partner" }).waitFor();
  await looking.page.locator(".token-rows button").first().click();
  await looking.page.waitForSelector(".predictions tbody tr");
  expect(await looking.page.innerText(".predictions h3")).toContain("(0)");
});

test("the edited run is looked into: a head of it scores as the client says, and the link shows it too", async () => {
  await addEdit(looking.page, { op: "ablate", site: "head", layer: "0", head: "0", where: "all" });
  await runEdits();
  const llm = await edited([zero(head(0, 0), EVERYWHERE)]);
  await looking.page.click("button[name=swap]");
  await looking.tab("heads");
  const score = (await llm.headScores(0, 1, { kind: "induction" })).at(0);
  const { nLayers } = await llm.modelInfo();
  await looking.page.waitForSelector('[aria-label="Scores of heads"][aria-busy="false"]');
  await clickCell(looking.page, "Scores of heads", nLayers - 2, 0);
  expect(await cellWords(looking.page, "Scores of heads")).toBe(`Layer 1, head 0: ${score.toFixed(4)}`);

  const shown = await looking.page.innerText(".shown-run");
  expect(shown).toContain("with an edit: Ablate head 0 of layer 0 at all tokens");
  const other = await Looking.start({}, new URL(looking.page.url()).hash);
  try {
    await other.is("done");
    expect(await other.page.innerText(".shown-run")).toBe(shown);
    expect(await other.page.inputValue("textarea[name=sentence]")).toBe(SENTENCE);
  } finally {
    await other.close();
  }
  await looking.page.click("button[name=swap]");
  await looking.tab("compare");
  await shows(llm);
});

test("a head is ablated by clicks in the graph", async () => {
  await looking.tab("graph");
  await looking.page.click(".edge-table summary");
  await looking.page.click('.edge-table button:has-text("after attention"):below(.edge-table summary)');
  const card = looking.page.locator("[data-selection]").first();
  const [, layer] = /-A(\d+)_/.exec((await card.getAttribute("data-selection")) ?? "") ?? [];
  await card.locator('button:has-text("Head 2")').click();
  await card.locator('button:text-is("Ablate this head")').click();
  await card.locator('button:has-text("1 edit")').click();
  await runEdits();
  await edited([zero(head(Number(layer), 2), EVERYWHERE)]);
});
