/** The example page in Chromium, through Envoy, by clicks: what it shows is what the client in Node reads. */

import { fileURLToPath } from "node:url";
import type { Page, Route } from "playwright-core";
import { build } from "vite";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, test } from "vitest";
import { connect, type RemoteTransparentLlm, type Tensor } from "../../src/node.js";
import type { Child } from "../support/child.js";
import { Chromium } from "../support/chromium.js";
import { startEnvoy } from "../support/envoy.js";
import { PROJECT } from "../support/python.js";
import { StaticServer } from "../support/static_server.js";

const SENTENCE = "My lord, I shall reply amazedly";

let envoy: Child;
let files: StaticServer;
let chromium: Chromium;
let page: Page;
let llm: RemoteTransparentLlm;

beforeAll(async () => {
  const folder = new URL("../../examples/page/", import.meta.url);
  await build({ configFile: fileURLToPath(new URL("vite.config.ts", folder)), logLevel: "warn" });
  envoy = await startEnvoy(inject("target"));
  files = await StaticServer.of(new URL("dist/", folder));
  chromium = await Chromium.start();
  page = await chromium.open(files.address, { viewport: { width: 1200, height: 1180 } });
  llm = connect(inject("target"));
  await llm.run([SENTENCE]);
});

afterAll(async () => {
  llm?.close();
  await chromium?.close();
  await files?.close();
  await envoy?.endInput();
});

async function run(server: string, sentence: string, on = page): Promise<void> {
  await on.fill("#server", server);
  await on.fill("#sentence", sentence);
  await on.click("#run");
}

async function isIn(state: string, on = page): Promise<void> {
  await on.waitForSelector(`#status[data-state="${state}"]`);
}

async function showsHead(head: number): Promise<void> {
  await page.waitForSelector(`#pattern[aria-label="Attention of layer 1, head ${head}"]`, { timeout: 10_000 });
}

/** That the pattern of a head of layer 1 is shown, in a run of a sentence. */
async function showsPattern(of: string, head: number): Promise<void> {
  const twin = llm.copy();
  await twin.run([of]);
  const pattern = await twin.attentionMatrix(0, 1, head);
  await showsHead(head);
  await page.focus("#pattern");
  await page.keyboard.press("ArrowUp"); // from the last square
  await page.keyboard.press("ArrowLeft");
  const place = (pattern.shape[0] as number) - 2;
  expect(await page.innerText("#weight")).toContain(`(${place}): ${pattern.at(place, place).toFixed(4)}`);
}

test("the address that it proposes is on its own host", async () => {
  expect(await page.inputValue("#server")).toBe("http://127.0.0.1:50051");
});

test("nobody at the address is told with what to do", async () => {
  const nobody = await StaticServer.of(new URL(".", import.meta.url));
  await nobody.close(); // its port is free now
  await run(nobody.address, SENTENCE);
  await isIn("failed");
  const told = await page.innerText("#error");
  expect(told).toContain("Unavailable (UNAVAILABLE)");
  expect(told).toContain(nobody.address);
  expect(told).toContain("Start both");
});

test("a sentence that is too long is told too, and the next one works", async () => {
  await run(`http://${envoy.said}`, "so long ".repeat(400));
  await isIn("failed");
  expect(await page.innerText("#error")).toContain("TooLarge (TOO_LONG)");
  await run(`http://${envoy.said}`, SENTENCE);
  await isIn("done");
  expect(await page.isVisible("#error")).toBe(false);
});

test("the logit lens is what the client in Node reads", async () => {
  const { nLayers } = await llm.modelInfo();
  const strings = await llm.tokensToStrings(llm.tokens().data as BigInt64Array);
  const shown = await page.$$eval("#lens-table tbody tr", (rows) =>
    rows.map((row) => [...row.querySelectorAll("td")].map((cell) => cell.innerText)),
  );
  expect(shown.length).toBe(nLayers);
  expect(shown.every((row) => row.length === strings.length)).toBe(true);
  for (const layer of [0, nLayers - 1]) {
    const stream = await llm.residualOut(layer);
    for (const pos of [0, 1, strings.length - 1]) {
      expect(shown[nLayers - 1 - layer]?.[pos]).toBe(await guessed(stream, pos));
    }
  }
});

/** As a cell of the table: the token and its share. */
async function guessed(stream: Tensor, pos: number): Promise<string> {
  const width = stream.shape[2] as number;
  const logits = await llm.unembed(stream.toFloat32().slice(pos * width, (pos + 1) * width), true);
  const shares = Array.from(logits.toFloat32(), Math.exp);
  const best = shares.indexOf(Math.max(...shares));
  const [text = ""] = await llm.tokensToStrings([best]);
  const share = (shares[best] as number) / shares.reduce((a, b) => a + b);
  return `${text.replaceAll(" ", "·").replaceAll("\n", "↵")}\n${(share * 100).toFixed(1)} %`;
}

test("the weight under the pointer is what the client in Node reads", async () => {
  await page.selectOption("#layer", "1");
  await page.selectOption("#head", "2");
  await page.waitForSelector('#pattern[aria-label="Attention of layer 1, head 2"]');
  const pattern = await llm.attentionMatrix(0, 1, 2);
  const count = pattern.shape[0] as number;
  const last = { query: count - 1, key: 1 };
  // From the last square, where the arrow keys begin, to the second of its row; then by the pointer.
  await page.focus("#pattern");
  for (let key = count - 1; key > last.key; key--) {
    await page.keyboard.press("ArrowLeft");
  }
  await page.keyboard.press("ArrowDown");
  expect(await page.innerText("#weight")).toContain(`(1): ${pattern.at(last.query, last.key).toFixed(4)}`);
  const box = await page.locator("#pattern").boundingBox();
  const [width, height] = [box?.width as number, box?.height as number];
  await page.hover("#pattern", { position: { x: width - 8, y: height - 8 } });
  expect(await page.innerText("#weight")).toContain(`(${count - 1}): ${pattern.at(-1, -1).toFixed(4)}`);
});

describe("what is drawn is of one run", () => {
  const longer = `${SENTENCE}, and then I shall go`;
  /** RPCs whose next call is to be held, and who waits for it. */
  const wanted = new Map<string, (call: Route) => void>();

  /** The next call of an RPC, which goes nowhere before it is let go. */
  function held(rpc: string): Promise<Route> {
    return new Promise((resolve) => wanted.set(rpc, resolve));
  }

  beforeEach(async () => {
    await page.route(/[/](Run|AttentionMatrix)$/, async (call) => {
      const rpc = call.request().url().replace(/.*[/]/, "");
      const hold = wanted.get(rpc);
      wanted.delete(rpc);
      await (hold === undefined ? call.continue() : hold(call));
    });
    await run(`http://${envoy.said}`, SENTENCE);
    await isIn("done");
    await page.selectOption("#layer", "1");
    await page.selectOption("#head", "0");
    await showsHead(0);
  });

  afterEach(() => page.unrouteAll({ behavior: "ignoreErrors" }));

  test("when a head of the run before comes late", async () => {
    const heldRun = held("Run");
    await run(`http://${envoy.said}`, longer);
    const runCall = await heldRun;
    const heldRead = held("AttentionMatrix");
    await page.selectOption("#head", "2"); // of the run that is shown
    const late = await heldRead;
    const isOver = Promise.race([
      page.waitForEvent("requestfinished", (request) => request === late.request()),
      page.waitForEvent("requestfailed", (request) => request === late.request()),
    ]);
    await runCall.continue();
    await isIn("done");
    await late.continue();
    await isOver;
    await showsPattern(longer, 2);
  });

  test("when a head is chosen while the first one of a new run is read", async () => {
    const heldRead = held("AttentionMatrix");
    await run(`http://${envoy.said}`, longer);
    const first = await heldRead;
    await page.selectOption("#head", "1");
    await showsHead(1);
    await first.continue();
    await isIn("done");
    await showsPattern(longer, 1);
  });

  test("while a new run that fails begins, and after it", async () => {
    await run(`http://${envoy.said}`, "so long ".repeat(400));
    await isIn("failed");
    await showsPattern(SENTENCE, 0);
    expect(await page.isVisible("#error")).toBe(true);
    await page.selectOption("#head", "3");
    await showsPattern(SENTENCE, 3);
    expect(await page.isVisible("#error")).toBe(false); // as something worked since
  });
});

async function placeOfCanvas(on: Page): Promise<Record<"right" | "bottom" | "frameRight", number>> {
  return on.$eval("#pattern", (canvas) => {
    const { right, bottom } = canvas.getBoundingClientRect();
    const frameRight = (canvas.parentElement as HTMLElement).getBoundingClientRect().right;
    return { right, bottom, frameRight };
  });
}

describe("on a small screen", () => {
  let small: Page;

  beforeAll(async () => {
    small = await chromium.open(files.address, { viewport: { width: 420, height: 500 }, hasTouch: true });
    await run(`http://${envoy.said}`, "so it goes on ".repeat(12).trim(), small);
    await isIn("done", small);
  });

  afterAll(() => small?.close());

  test("a tap tells what the pointer tells", async () => {
    await small.tap("#pattern", { position: { x: 200, y: 200 } });
    expect(await small.innerText("#weight")).toMatch(/ looks at .*: 0\.\d{4}$/);
  });

  test("the arrow keys scroll to the square that they move to, and no further", async () => {
    await small.focus("#pattern");
    const count = (await small.$$("#lens-table thead th")).length;
    for (let step = 0; step < count; step++) {
      await small.keyboard.press("ArrowDown");
      await small.keyboard.press("ArrowRight");
    }
    const corner = await placeOfCanvas(small);
    expect(corner.right).toBeLessThanOrEqual(corner.frameRight + 1);
    expect(corner.bottom).toBeLessThanOrEqual(500 + 1);
    await small.keyboard.press("ArrowDown");
    await small.keyboard.press("ArrowRight");
    expect(await placeOfCanvas(small)).toEqual(corner);
  });

  test("an arrow with Alt is the browser's", async () => {
    const isPrevented = await small.$eval("#pattern", (canvas) => {
      const isGivenOn = canvas.dispatchEvent(
        new KeyboardEvent("keydown", { key: "ArrowLeft", altKey: true, cancelable: true }),
      );
      return !isGivenOn;
    });
    expect(isPrevented).toBe(false);
  });
});

test("a run is stopped by a click", async () => {
  const long = "so ".repeat(200).trim();
  await page.fill("#sentence", long);
  await page.click("#run");
  await page.click("#stop");
  await isIn("idle");
  expect(await page.innerText("#status")).toContain("Stopped.");
});

test.runIf(process.env["TRANSPARENT_LLM_SCREENSHOT"])("docs/example-page.png", async () => {
  await run(`http://${envoy.said}`, SENTENCE);
  await isIn("done");
  await page.focus("#pattern");
  for (const key of ["ArrowUp", "ArrowLeft", "ArrowLeft", "ArrowLeft", "ArrowLeft"]) {
    await page.keyboard.press(key);
  }
  await page.fill("#server", "http://localhost:50051");
  await page.locator("#server").blur();
  await page.screenshot({ path: `${PROJECT}docs/example-page.png`, fullPage: true });
});
