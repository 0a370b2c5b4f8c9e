/** Who may look: tokens, owners, other pages' frames and calls. Of the server's own port; Envoy has tests of its own. */

import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { Child } from "../../../clients/typescript/test/support/child.js";
import { Chromium } from "../../../clients/typescript/test/support/chromium.js";
import { PROJECT, PYTHON } from "../../../clients/typescript/test/support/python.js";
import { PageServer } from "../support/page_server.js";

const LOGIN_PROXY = fileURLToPath(new URL("../support/login_proxy.py", import.meta.url));

let chromium: Chromium;

beforeAll(async () => {
  chromium = await Chromium.start();
});

afterAll(() => chromium?.close());

describe("a server that wants tokens", () => {
  let folder: string;
  let server: PageServer;
  let token: string;
  let page: Page;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "transparent-llm-tokens-"));
    const { stdout, stderr } = await promisify(execFile)(PYTHON, ["-m", "transparent_llm", "token", "alice"]);
    token = stdout.trim();
    const tokens = join(folder, "tokens.txt");
    await writeFile(tokens, stderr, { mode: 0o600 });
    server = await PageServer.start("--tokens", tokens);
    page = await chromium.open(server.page);
  });

  afterAll(async () => {
    await server?.stop();
    await rm(folder, { recursive: true });
  });

  test("asks for one, refuses a wrong one in words, and shows the model to who has one", async () => {
    await page.waitForSelector("input[name=token]");
    expect(await page.innerText(".status")).toContain("Auth");
    await page.fill("input[name=token]", "not-a-token");
    await page.click('button:text-is("Use it")');
    await page.waitForFunction(() =>
      document.querySelector(".status")?.textContent?.includes("does not know the token"),
    );
    await page.fill("input[name=token]", token);
    await page.click('button:text-is("Use it")');
    await page.waitForSelector('.status[data-state="idle"]');
    await page.click("button.primary");
    await page.waitForSelector('.status[data-state="done"]');
    expect(page.url()).not.toContain(token);
  });

  test("has the token in this tab alone", async () => {
    await page.reload();
    await page.waitForSelector('.status[data-state="done"]'); // of the recipe in the address
    expect(await page.evaluate(() => [localStorage.length, document.cookie])).toEqual([0, ""]);
    const other = await chromium.open(page.url());
    await other.waitForSelector("input[name=token]");
    await other.close();
  });

  test("stands behind a login that puts the token in the place of a password", async () => {
    const proxy = await Child.start(PYTHON, [LOGIN_PROXY, new URL(server.page).port, token], /^(\d+)$/, {
      PYTHONPATH: `${PROJECT}tests`,
    });
    const address = `http://127.0.0.1:${proxy.said}/`;
    const stranger = await fetch(address);
    expect(stranger.status).toBe(401);
    await stranger.body?.cancel();
    const httpCredentials = { username: "alice", password: "wonderland" };
    const own = await chromium.open(address, { httpCredentials });
    await own.waitForSelector('.status[data-state="idle"]');
    await own.click("button.primary");
    await own.waitForSelector('.status[data-state="done"]');
    expect(await own.$("input[name=token]")).toBeNull();
    await own.close();
    await proxy.endInput();
  });
});

describe("a page of somebody else", () => {
  let server: Server;
  let address: string;

  beforeAll(async () => {
    server = createServer((_, response) => {
      response.writeHead(200, { "content-type": "text/html" }).end(`<iframe src="${inject("page")}"></iframe>`);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  });

  afterAll(() => {
    server.closeAllConnections();
    server.close();
  });

  test("cannot put this one into a frame", async () => {
    const page = await chromium.open(address);
    const frame = page.frames().find((each) => each !== page.mainFrame());
    expect(await frame?.evaluate(() => document.querySelector("#page"))).toBeNull();
    await page.close();
  });

  test("cannot call the model", async () => {
    const page = await chromium.open(address);
    const outcome = await page.evaluate(async (url) => {
      const call = (init: RequestInit): Promise<string> =>
        fetch(`${url}transparent_llm.v1.TransparentLlmService/ServerInfo`, { method: "POST", ...init }).then(
          ({ status, type }) => `${status} ${type}`,
          () => "refused",
        );
      return [
        await call({ headers: { "content-type": "application/grpc-web+proto" }, body: "\0\0\0\0\0" }),
        await call({ mode: "no-cors", body: "\0\0\0\0\0" }), // what needs no leave is not answered with values either
      ];
    }, inject("page"));
    expect(outcome[0]).toBe("refused");
    expect(outcome[1]).toMatch(/^0 opaque$|^refused$/);
    await page.close();
  });
});

test("nothing of the page comes from anywhere else, and nothing is refused by its own policy", async () => {
  const page = await chromium.open("about:blank");
  const [from, violations]: [Set<string>, string[]] = [new Set(), []];
  page.on("request", (request) => from.add(new URL(request.url()).protocol + new URL(request.url()).host));
  page.on("console", (said) => violations.push(said.text()));
  await page.goto(inject("page"));
  await page.click("button.primary");
  await page.waitForSelector('.status[data-state="done"]');
  for (const tab of ["lens", "attribution", "heads", "compare", "graph"]) {
    await page.click(`#tab-${tab}`);
    await page.waitForFunction(() => document.querySelector('[aria-busy="true"]') === null);
  }
  from.delete("data:");
  expect([...from]).toEqual([`http:${new URL(inject("page")).host}`]);
  expect(violations).toEqual([]);
  await page.close();
});

test("several models, whatever their names, are chosen by name", async () => {
  const demo = `${PROJECT}server/transparent_llm_server/demo/model`;
  const name = "<script>alert(1)</script>";
  const server = await PageServer.start("--model", `small=${demo}`, "--model", `${name}=${demo}`);
  const page = await chromium.open(server.page);
  await page.selectOption("select[name=model]", name);
  await page.click("button.primary");
  await page.waitForSelector('.status[data-state="done"]');
  expect(await page.innerText("details.model summary")).toContain(name);
  expect(await page.$("main script")).toBeNull();
  await page.close();
  await server.stop();
});
