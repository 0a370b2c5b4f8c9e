/** What goes wrong with the real server, and what a user gets. */

import { afterEach, beforeEach, expect, inject, test } from "vitest";
import type { Read } from "../../src/index.js";
import { connect, type RemoteTransparentLlm } from "../../src/node.js";

let llm: RemoteTransparentLlm;

beforeEach(() => {
  llm = connect(inject("target"));
});

afterEach(() => llm.close());

test("reading before any run", async () => {
  const notRun = { name: "NotRunError", reason: "NOT_RUN" };
  await expect(llm.logits()).rejects.toMatchObject(notRun);
  await expect(llm.fetch([["logits"]])).rejects.toMatchObject(notRun);
  await expect(llm.fetch([])).rejects.toMatchObject(notRun);
  await expect(llm.release()).rejects.toMatchObject(notRun);
  expect(() => llm.tokens()).toThrow(expect.objectContaining(notRun));
  expect(() => llm.batchSize()).toThrow(expect.objectContaining(notRun));
});

test.each<[string, (of: RemoteTransparentLlm) => Promise<unknown>, object]>([
  [
    "a layer past the last",
    (of) => of.residualIn(99),
    { name: "IndexOutOfRangeError", metadata: { axis: "layer", got: "99" } },
  ],
  ["one before the first", (of) => of.residualIn(-99), { name: "IndexOutOfRangeError" }],
  [
    "one of more than 32 bits",
    (of) => of.residualIn(2 ** 31),
    { name: "IndexOutOfRangeError", metadata: { axis: "layer" } },
  ],
  ["half a layer", (of) => of.residualIn(0.5), { name: "IndexOutOfRangeError" }],
  [
    "no layer",
    (of) => of.fetch([["residualIn"] as unknown as Read]),
    { reason: "MISSING_ARGUMENT", metadata: { axis: "layer" } },
  ],
  [
    "an unknown axis",
    (of) => of.logits({ slices: { nope: {} } }),
    { reason: "INVALID_SLICE", metadata: { axis: "nope" } },
  ],
  [
    "a step of 0",
    (of) => of.logits({ slices: { pos: { step: 0 } } }),
    { reason: "INVALID_SLICE", metadata: { axis: "pos" } },
  ],
  ["integers", (of) => of.logits({ dtype: "I32" }), { name: "InvalidRequestError", reason: "INVALID_DTYPE" }],
  ["one string", (of) => of.run("one" as never), { name: "InvalidRequestError", reason: "INVALID_REQUEST" }],
  ["no sentence", (of) => of.run([]), { name: "InvalidRequestError", reason: "EMPTY_INPUT" }],
  [
    "more tokens than the model takes",
    (of) => of.run(["so long ".repeat(500)]),
    { name: "TooLargeError", reason: "TOO_LONG" },
  ],
  ["an unknown token", (of) => of.runTokens([[1_000_000]]), { reason: "UNKNOWN_TOKEN" }],
  ["a read that is none", (of) => of.fetch("logits" as never), { reason: "INVALID_REQUEST" }],
  ["a read that JSON does not know", (of) => of.fetch([1n as never]), { reason: "INVALID_REQUEST" }],
  ["an unknown read", (of) => of.fetch([["nope"] as never]), { reason: "INVALID_REQUEST" }],
  ["a vector of another length", (of) => of.unembed([1, 2], true), { reason: "INVALID_SHAPE" }],
  ["a timeout of 0", (of) => of.logits({ timeoutMs: 0 }), { reason: "INVALID_REQUEST" }],
])("%s", async (_, call, wanted) => {
  await llm.run(["Hello"]);
  await expect(call(llm)).rejects.toMatchObject(wanted);
  expect((await llm.logits()).dtype).toBe("F32");
});

test("a model that is not served", async () => {
  const other = connect(inject("target"), { model: "nope" });
  await expect(other.run(["Hello"])).rejects.toMatchObject({ name: "NotFoundError", reason: "MODEL_NOT_FOUND" });
  other.close();
});

test("a value that is larger than allowed", async () => {
  const small = connect(inject("target"), { maxBytes: 1000 });
  await small.run(["Hello there"]);
  const wanted = { name: "TooLargeError", reason: "TOO_LARGE", metadata: { allowed: "1000" } };
  await expect(small.logits()).rejects.toMatchObject(wanted);
  await expect(small.decomposedAttn(0, 0)).rejects.toMatchObject(wanted);
  await expect(small.decomposedFfnOut(0, 0, 0)).rejects.toMatchObject(wanted);
  await expect(small.fetch([["decomposedFfnOut", 0, 0, 0]])).rejects.toMatchObject(wanted);
  expect((await small.logits({ slices: { d_vocab: { stop: 3 } } })).shape.at(-1)).toBe(3);
  small.close();
});

test("weights that are too large to keep are not fetched twice", async () => {
  const small = connect(inject("target"), { weightsBytes: 1000 });
  await small.run(["Hello there"]);
  const first = await small.decomposedFfnOut(0, 0, 0);
  expect(await small.decomposedFfnOut(0, 0, 0)).toEqual(first);
  small.close();
});

test.each([
  ["no host", ":1"],
  ["a path", "127.0.0.1:1/x"],
  ["a scheme", "http://127.0.0.1:1"],
  ["a login", "me@127.0.0.1:1"],
])("a target with %s", (_, target) => {
  expect(() => connect(target)).toThrow(expect.objectContaining({ name: "InvalidRequestError" }));
});

test("a target of a host alone takes the port of servers", () => {
  expect(() => connect("127.0.0.1").close()).not.toThrow();
});

test.each([
  [{ tlsCert: "x", tlsCa: "system" }],
  [{ tlsKey: "x", tlsCa: "system" }],
  [{ tlsCert: "x", tlsKey: "x" }],
  [{ tlsCa: "/nowhere" }],
  [{ tlsCa: "-----BEGIN CERTIFICATE-----\nnonsense" }],
  [{ token: "line\n" }],
  [{ token: "é" }],
  [{ maxBytes: 0 }],
  [{ timeoutMs: -1 }],
  [{ timeoutMs: 1e9 }],
])("the options %j", (options) => {
  expect(() => connect("127.0.0.1:1", options)).toThrow(expect.objectContaining({ name: "InvalidRequestError" }));
});

test("a client that was closed", async () => {
  const twin = llm.copy();
  llm.close();
  for (const each of [llm, twin]) {
    await expect(each.modelInfo()).rejects.toMatchObject({ name: "InvalidRequestError", message: /closed/ });
  }
});

test("one signal for many calls", async () => {
  const warnings: unknown[] = [];
  const note = (warning: unknown): number => warnings.push(warning);
  process.on("warning", note);
  const canceller = new AbortController();
  const calls = Array.from({ length: 30 }, () => llm.modelInfo({ signal: canceller.signal }));
  canceller.abort();
  const outcomes = await Promise.allSettled(calls);
  process.off("warning", note);
  expect(outcomes.map(({ status }) => status)).toEqual(Array(30).fill("rejected"));
  expect(warnings).toEqual([]);
});
