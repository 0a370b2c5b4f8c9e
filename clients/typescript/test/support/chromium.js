// Headless Chromium of this machine, with a profile of its own that is gone afterwards.

import { chromium } from "playwright-core";

const ARGUMENTS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** A running one. */
export class Chromium {
  #browser;

  /** @param {import("playwright-core").Browser} browser */
  constructor(browser) {
    this.#browser = browser;
  }

  static async start() {
    const executablePath = process.env["CHROMIUM"] ?? "/usr/bin/chromium";
    return new Chromium(await chromium.launch({ executablePath, args: ARGUMENTS, headless: true }));
  }

  /**
   * A page at an address. What it says on its console goes to standard error.
   *
   * @param {string} address
   * @param {import("playwright-core").BrowserContextOptions} [options]
   */
  async open(address, options = {}) {
    const page = await this.#browser.newPage(options);
    page.on("console", (said) => console.error(`page: ${said.text()}`));
    page.on("pageerror", (error) => console.error(`page: ${error.stack ?? error}`));
    await page.goto(address);
    return page;
  }

  async close() {
    await this.#browser.close();
  }
}
