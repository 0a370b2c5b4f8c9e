/** The client of pages through the server's own port for them: gRPC-Web without a proxy between. */

import { afterAll, beforeAll, expect, test } from "vitest";
import { connect as connectByGrpc } from "../../src/node.js";
import { connect, type RemoteTransparentLlm } from "../../src/web.js";
import type { Child } from "../support/child.js";
import { startServer } from "../support/server.js";

const SENTENCES = ["the king of france", "a queen"];

let server: Child;
let page: string;
let llm: RemoteTransparentLlm;

beforeAll(async () => {
  server = await startServer("--page", "127.0.0.1:0");
  page = await server.logged(/ page on (http:\S+)\n/);
  llm = connect(page);
});

afterAll(async () => {
  llm.close();
  await server.stop();
});

test("values are those that gRPC brings", async () => {
  const other = connectByGrpc(server.said);
  await Promise.all([llm.run(SENTENCES), other.run(SENTENCES)]);
  expect(await llm.tokens()).toEqual(await other.tokens());
  expect(await llm.logits()).toEqual(await other.logits());
  expect(await llm.residualIn(1)).toEqual(await other.residualIn(1));
  const reads = [["logits"], ["residualIn", 0]] as const;
  expect(await llm.fetch(reads)).toEqual(await other.fetch(reads));
  other.close();
});

test("errors keep what they say", async () => {
  await llm.run(SENTENCES);
  await expect(llm.residualIn(99)).rejects.toMatchObject({
    name: "IndexOutOfRangeError",
    metadata: { axis: "layer", got: "99" },
  });
});

test("a call that is cancelled ends on the server too, and the next one is answered", async () => {
  const canceller = new AbortController();
  await llm.run(Array.from({ length: 128 }, (_, i) => `${i} ${"the king ".repeat(24)}`)); // more than buffers hold
  let seen = 0;
  const read = llm.logits({
    signal: canceller.signal,
    onProgress: () => {
      seen++;
      canceller.abort();
    },
  });
  await expect(read).rejects.toMatchObject({ name: "CancelledError" });
  expect(seen).toBeGreaterThan(0);
  expect(await server.logged(/ (Logits CANCELLED) /)).toBeTruthy();
  expect(await llm.isServing()).toBe(true);
});

test("a time that is over is one", async () => {
  await expect(llm.run(["x ".repeat(400)], { timeoutMs: 1 })).rejects.toMatchObject({ name: "DeadlineError" });
});

test("the page itself is there", async () => {
  const answer = await fetch(`${page}/`);
  expect(answer.status).toBe(200);
  expect(answer.headers.get("content-security-policy")).toContain("default-src 'none'");
  expect((await answer.text()).toLowerCase()).toContain("<!doctype html>");
});
