/** The page in Chromium, and the client in Node that says what must stand there. */

import type { BrowserContextOptions, Page } from "playwright-core";
import { inject } from "vitest";
import { connect, type RemoteTransparentLlm } from "../../../clients/typescript/src/node.js";
import { Chromium } from "../../../clients/typescript/test/support/chromium.js";
import "./provided.js";
import { Layout } from "../../src/graph/layout.js";
import type { GraphNode } from "../../src/graph/selection.js";

/** Where a page is, and the gRPC server that it shows. */
export interface Served {
  readonly page: string;
  /** HOST:PORT. */
  readonly target: string;
}

export const SENTENCE = "My lord, the king of France is dead; my lord, the king of";

/** A page that is open, and a client of the same server. */
export class Looking {
  readonly #chromium: Chromium;
  readonly page: Page;
  readonly llm: RemoteTransparentLlm;

  private constructor(chromium: Chromium, page: Page, llm: RemoteTransparentLlm) {
    this.#chromium = chromium;
    this.page = page;
    this.llm = llm;
  }

  static async start(options: BrowserContextOptions = {}, fragment = "", served?: Served): Promise<Looking> {
    const at: Served = served ?? { page: inject("page"), target: inject("target") };
    const chromium = await Chromium.start();
    const page = await chromium.open(`${at.page}${fragment}`, {
      viewport: { width: 1280, height: 1000 },
      ...options,
    });
    return new Looking(chromium, page, connect(at.target));
  }

  /** Run a sentence, on the page and with the client, until all layers are painted. */
  async run(sentence: string = SENTENCE): Promise<void> {
    await this.page.fill("textarea[name=sentence]", sentence);
    await this.page.click("button.primary");
    await this.is("done");
    await this.llm.run([sentence]);
  }

  /** Wait until the page's state is this. */
  async is(state: "idle" | "busy" | "done" | "failed"): Promise<void> {
    await this.page.waitForSelector(`.status[data-state="${state}"]`, { timeout: 30_000 });
  }

  async tab(name: "graph" | "lens" | "attribution" | "heads" | "compare"): Promise<void> {
    await this.page.click(`#tab-${name}`);
  }

  /** Open something of the graph as a click on it does: its place on the canvas comes from the layout. */
  async clickNode(node: GraphNode): Promise<void> {
    await this.clickAt(await this.placeOf(node));
  }

  /** The place of a node on the canvas, in its pixels. */
  async placeOf(node: GraphNode): Promise<readonly [number, number]> {
    const { nLayers } = await this.llm.modelInfo();
    const layout = new Layout(this.llm.tokens().shape[1] as number, nLayers);
    return this.onScreen(layout.place(node));
  }

  /** A point of the graph on the canvas. */
  async onScreen([x, y]: readonly [number, number]): Promise<readonly [number, number]> {
    await this.page.waitForSelector('.graph canvas:not([data-view="0,0,1"])'); // it was fitted into its frame
    const view = await this.page.getAttribute(".graph canvas", "data-view");
    const [dx, dy, k] = (view ?? "").split(",").map(Number) as [number, number, number];
    return [dx + x * k, dy + y * k];
  }

  async clickAt([x, y]: readonly [number, number]): Promise<void> {
    await this.page.click(".graph canvas", { position: { x, y } });
  }

  async close(): Promise<void> {
    this.llm.close();
    await this.#chromium.close();
  }
}
