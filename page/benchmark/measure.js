// What a browser takes to show the page and a large run: node measure.js ADDRESS TOKENS ROUNDS, one line of JSON.

import { chromium } from "playwright-core";

const [address = "", tokens = "20", rounds = "3"] = process.argv.slice(2);
const ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"];
const STEPS = 60;

const browser = await chromium.launch({
  executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium",
  args: ARGUMENTS,
  headless: true,
});
const paints = [];
for (let round = 0; round < Number(rounds); round++) {
  paints.push(await firstPaint());
}
const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
await page.goto(address);
const paintedS = await run();
await page.fill("input[name=threshold]", "0.01"); // the most edges
const found = {
  first_paint_ms: median(paints),
  painted_s: paintedS,
  edges: Number(await page.getAttribute("[data-edges]", "data-edges")),
  control_ms: median(await controls()),
  moving: await frames(drag),
  scrolling: await frames(scroll),
};
await page.click("#tab-lens");
await page.waitForFunction(() => document.querySelector('[aria-busy="true"]') === null, null, { timeout: 300_000 });
console.log(JSON.stringify({ ...found, lens_scrolling: await frames(scroll) }));
await browser.close();

/** From the request of the page until something stands there. */
async function firstPaint() {
  const context = await browser.newContext();
  const fresh = await context.newPage();
  await fresh.goto(address);
  await fresh.waitForSelector("textarea");
  const ms = await fresh.evaluate(
    () => performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? Number.NaN,
  );
  await context.close();
  return ms;
}

/** Until all layers are there, in seconds. */
async function run() {
  const letters = Array.from({ length: Number(tokens) }, (_, i) => String.fromCharCode(97 + ((i * i) % 26)));
  await page.fill("textarea[name=sentence]", letters.join("")); // each is a token of the tokenizer of bytes
  const began = performance.now();
  await page.click("button.primary");
  await page.waitForSelector('.status[data-state="done"]', { timeout: 300_000 });
  return (performance.now() - began) / 1000;
}

/** From a move of the threshold until the graph has other edges, in milliseconds. */
async function controls() {
  return page.evaluate(async () => {
    const slider = /** @type {HTMLInputElement} */ (document.querySelector("input[name=threshold]"));
    const edges = () => document.querySelector("[data-edges]")?.getAttribute("data-edges");
    const taken = [];
    for (const threshold of ["0.05", "0.02", "0.1", "0.03", "0.01"]) {
      const [before, began] = [edges(), performance.now()];
      slider.value = threshold;
      slider.dispatchEvent(new Event("input", { bubbles: true }));
      while (edges() === before && performance.now() - began < 5000) {
        await new Promise(requestAnimationFrame);
      }
      taken.push(performance.now() - began);
    }
    return taken;
  });
}

/** Between frames of the screen while something is done, in milliseconds. @param {() => Promise<void>} work */
async function frames(work) {
  await page.evaluate(() => {
    const seen = { last: performance.now(), gaps: /** @type {number[]} */ ([]), isOn: true };
    Object.assign(window, { seen });
    const tick = () => {
      const now = performance.now();
      seen.gaps.push(now - seen.last);
      seen.last = now;
      if (seen.isOn) {
        requestAnimationFrame(tick);
      }
    };
    requestAnimationFrame(tick);
  });
  await work();
  const gaps = await page.evaluate(() => {
    const { seen } = /** @type {any} */ (window);
    seen.isOn = false;
    return /** @type {number[]} */ (seen.gaps);
  });
  gaps.sort((a, b) => a - b);
  return { frames: gaps.length, median_ms: median(gaps), longest_ms: gaps.at(-1) };
}

async function drag() {
  const box = await page.locator(".graph canvas").boundingBox();
  const [x, y] = [(box?.x ?? 0) + (box?.width ?? 0) / 2, (box?.y ?? 0) + (box?.height ?? 0) / 2];
  await page.mouse.move(x, y);
  await page.mouse.down();
  for (let step = 0; step < STEPS; step++) {
    await page.mouse.move(x - 5 * step, y + 3 * Math.sin(step / 5));
  }
  await page.mouse.up();
}

async function scroll() {
  for (let step = 0; step < STEPS; step++) {
    await page.mouse.wheel(step % 2 === 0 ? 40 : 0, step < STEPS / 2 ? 60 : -60);
  }
}

/** @param {readonly number[]} numbers */
function median(numbers) {
  return [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)];
}
