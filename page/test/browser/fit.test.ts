/** Fit for people: no serious finding of axe-core, on wide and small screens, light and dark; tokens of all scripts. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { visible } from "../../src/shown/token_text.js";
import { Looking, SENTENCE } from "../support/browser.js";
import { seriousFindings } from "../support/findings.js";

const TABS = ["graph", "lens", "attribution", "heads", "compare"] as const;

describe.each([
  ["light and wide", { colorScheme: "light", viewport: { width: 1280, height: 900 } }],
  ["dark and as small as a phone", { colorScheme: "dark", viewport: { width: 390, height: 800 }, hasTouch: true }],
] as const)("%s", (_, options) => {
  let looking: Looking;

  beforeAll(async () => {
    looking = await Looking.start(options);
    await looking.run();
  });

  afterAll(() => looking?.close());

  test.each(TABS)("the view %s has no serious finding", async (tab) => {
    await looking.tab(tab);
    if (tab === "graph") {
      await looking.clickNode({ kind: "X", layer: 0, pos: 1 });
    }
    await looking.page.waitForFunction(() => document.querySelector('[aria-busy="true"]') === null);
    expect(await seriousFindings(looking.page)).toEqual([]);
  });

  test("nothing is wider than the screen", async () => {
    for (const tab of TABS) {
      await looking.tab(tab);
      const [content, screen] = await looking.page.evaluate(() => [
        document.documentElement.scrollWidth,
        document.documentElement.clientWidth,
      ]);
      expect(content, tab).toBeLessThanOrEqual(screen as number);
    }
  });
});

test("on a phone what is opened comes into view, and there is a way back", async () => {
  const looking = await Looking.start({ viewport: { width: 390, height: 800 }, hasTouch: true });
  const { page } = looking;
  try {
    await looking.run();
    await looking.clickNode({ kind: "X", layer: 0, pos: 1 });
    await page.waitForSelector(".details table");
    const isInView = (selector: string): Promise<boolean> =>
      page
        .locator(selector)
        .first()
        .evaluate((element) => {
          const { top, bottom } = element.getBoundingClientRect();
          return top >= 0 && top < innerHeight && bottom > 0;
        });
    expect(await isInView(".details .card")).toBe(true);
    expect(await page.evaluate(() => document.activeElement?.className)).toBe("details");
    await page.click(".back-to-graph");
    expect(await isInView(".graph canvas")).toBe(true);
    expect(await page.evaluate(() => document.activeElement?.className)).toBe("canvas-keys");
    await page.setViewportSize({ width: 1280, height: 900 });
    expect(await page.isVisible(".back-to-graph")).toBe(false);
  } finally {
    await looking.close();
  }
});

describe("any text", () => {
  let looking: Looking;

  beforeAll(async () => {
    looking = await Looking.start();
  });

  afterAll(() => looking?.close());

  test.each([
    ["right-to-left", "my lord שלום עולם"],
    ["CJK", "my lord 日本語の文章"],
    ["line breaks", "My lord,\nthe king\n\nof France"],
    ["markup", '<script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">'],
  ])("%s is shown as text", async (_, sentence) => {
    await looking.run(sentence);
    const strings = await looking.llm.tokensToStrings(looking.llm.tokens().data as BigInt64Array);
    await looking.tab("lens");
    await looking.page.waitForFunction(() => document.querySelector('[aria-busy="true"]') === null);
    await looking.tab("graph");
    const last = strings.length - 1;
    await looking.clickNode({ kind: "X", layer: 0, pos: last });
    expect(await looking.page.innerText(`[data-selection="X0_${last}"]`)).toContain(visible(strings[last] as string));
    expect(await looking.page.evaluate(() => "hacked" in window)).toBe(false);
    expect(await looking.page.$("main img, main script")).toBeNull();
  });

  test("a sentence that is too long is told in words, and the next one works", async () => {
    await looking.page.fill("textarea[name=sentence]", "so long ".repeat(400));
    await looking.page.click("button.primary");
    await looking.is("failed");
    expect(await looking.page.innerText(".status")).toContain("TooLarge (TOO_LONG)");
    expect(await looking.page.innerText(".status")).toContain("Take a shorter sentence");
    await looking.run(SENTENCE);
  });

  test("a damaged link is told in words", async () => {
    const other = await Looking.start({}, "#recipe=AAAA");
    await other.is("failed");
    expect(await other.page.innerText(".status")).toContain("The link cannot be shown");
    await other.close();
  });
});
