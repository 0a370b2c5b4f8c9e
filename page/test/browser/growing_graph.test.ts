/** The graph that grows with what the model writes: its columns and edges are those that the client in Node reads. */

import { afterAll, beforeAll, expect, test } from "vitest";
import type { RemoteTransparentLlm } from "../../../clients/typescript/src/node.js";
import { Layout } from "../../src/graph/layout.js";
import { Looking, SENTENCE } from "../support/browser.js";
import { clientGraph } from "../support/client_graph.js";
import { seriousFindings } from "../support/findings.js";
import { held } from "../support/held.js";

const N = 6;

let looking: Looking;
let whole: RemoteTransparentLlm;

beforeAll(async () => {
  looking = await Looking.start();
  await looking.llm.run([SENTENCE]);
  whole = looking.llm.copy();
  await whole.generate([SENTENCE], { maxNewTokens: N });
});

afterAll(() => looking?.close());

async function goOn(count = N): Promise<void> {
  await looking.page.fill("textarea[name=sentence]", SENTENCE);
  await looking.page.fill("input[name=new-tokens]", String(count));
  await looking.page.click("button[name=go-on]");
}

async function hasColumns(count: number): Promise<void> {
  await looking.page.waitForSelector(`.growing-graph[data-columns="${count}"]`, { timeout: 15_000 });
}

/** Edges on the paths to a position. */
async function edgesTo(llm: RemoteTransparentLlm, pos: number, threshold = 0.04): Promise<string> {
  const graph = await clientGraph(llm, { threshold, renormalize: true });
  return String(graph.paths([pos]).edges().length);
}

async function shownEdges(): Promise<string | null> {
  return looking.page.getAttribute("[data-edges]", "data-edges");
}

test("the prompt's columns come first, then those of new tokens; in the end it is the graph of the run", async () => {
  const { page } = looking;
  const nPrompt = looking.llm.tokens().shape[1] as number;
  const [second, painting] = [await held(page, "Fetch", 2), await held(page, "AttnContributions")];
  await goOn();
  const call = await second.call; // columns of new tokens are on their way, those of the prompt are there
  await hasColumns(nPrompt);
  expect(await shownEdges()).toBe(await edgesTo(looking.llm, -1));
  const layout = new Layout(nPrompt, (await looking.llm.modelInfo()).nLayers);
  await looking.clickAt(await looking.onScreen(layout.start(4)));
  await expect.poll(shownEdges).toBe(await edgesTo(looking.llm, 4));
  await looking.clickAt(await looking.onScreen(layout.place({ kind: "A", layer: 0, pos: 1 })));
  expect(await page.locator("[data-selection]").count()).toBe(0); // there are no details of it yet
  expect(await seriousFindings(page)).toEqual([]);
  await call.continue();
  await second.release();

  const layer = await painting.call; // the text is whole, nothing of its run is painted yet
  const nTokens = whole.tokens().shape[1] as number;
  expect(nTokens).toBe(nPrompt + N - 1);
  await hasColumns(nTokens);
  await layer.continue();
  await painting.release();
  await looking.is("done");
  expect(await page.locator(".growing-graph").count()).toBe(0);
  expect(await shownEdges()).toBe(await edgesTo(whole, -1));
});

test("with another threshold while it grows, all columns are read anew; the newest column is where paths end", async () => {
  const { page } = looking;
  const [second, painting] = [await held(page, "Fetch", 2), await held(page, "AttnContributions")];
  await goOn();
  const call = await second.call;
  await page.fill("input[name=threshold]", "0.1");
  await call.continue();
  await second.release();
  const layer = await painting.call;
  await hasColumns(whole.tokens().shape[1] as number);
  expect(await shownEdges()).toBe(await edgesTo(whole, -1, 0.1));
  await layer.continue();
  await painting.release();
  await looking.is("done");
  await page.fill("input[name=threshold]", "0.04");
});

test("nothing of it is asked for where it is not wanted", async () => {
  const { page } = looking;
  const calls: string[] = [];
  page.on("request", (request) => calls.push(request.url().replace(/.*\//, "")));
  await page.uncheck("input[name=draw-growing]");
  await goOn();
  await looking.is("done");
  await page.check("input[name=draw-growing]");
  expect(calls).toContain("Generate");
  expect(calls).not.toContain("Fetch");
  expect(await shownEdges()).toBe(await edgesTo(whole, -1));
});

test("it is seen before anything was run, and is gone when it is stopped", async () => {
  const other = await Looking.start({ viewport: { width: 380, height: 800 } });
  try {
    await other.page.fill("input[name=new-tokens]", "200");
    await other.page.click("button[name=go-on]");
    await other.page.waitForSelector(".growing-graph canvas");
    const [content, screen] = await other.page.evaluate(() => [
      document.documentElement.scrollWidth,
      document.documentElement.clientWidth,
    ]);
    expect(content).toBeLessThanOrEqual(screen as number);
    await other.page.click('button:text-is("Stop")');
    await other.is("idle");
    expect(await other.page.locator(".growing-graph").count()).toBe(0);
  } finally {
    await other.close();
  }
});
