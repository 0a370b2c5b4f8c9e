/** Runs beside each other, with the real server and with servers that trouble the client. */

import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { Code } from "@connectrpc/connect";
import { afterEach, beforeEach, expect, inject, test } from "vitest";
import { EVERYWHERE, ffnOut, zero } from "../../src/interventions.js";
import { connect, type RemoteTransparentLlm, type RowComparison } from "../../src/node.js";
import { PYTHON } from "../support/python.js";
import { type Answers, refusal, ScriptedServer } from "../support/scripted_server.js";

const SENTENCES = ["My lord, I shall reply", "Hello"];
const LAYER = 3;
const EDITS = [zero(ffnOut(LAYER), EVERYWHERE)];

let llm: RemoteTransparentLlm;
let edited: RemoteTransparentLlm;

beforeEach(async () => {
  llm = connect(inject("target"), { timeoutMs: 30_000 });
  edited = llm.copy();
  await llm.run(SENTENCES);
  await edited.run(SENTENCES, { edits: EDITS });
});

afterEach(() => llm.close());

test("what an edit made of two sentences, as Python finds it", async () => {
  const script = fileURLToPath(new URL("comparison.py", import.meta.url));
  const args = [script, inject("target"), JSON.stringify(SENTENCES), String(LAYER)];
  const rows = JSON.parse(execFileSync(PYTHON, args, { encoding: "utf8" }));
  const found = await llm.compare(edited);
  expect(
    found.map((row) => [row.kl, row.topToken, row.topString, row.otherTopToken, row.otherTopString, row.topChanged]),
  ).toEqual(rows.map(([kl, ...rest]: [number, ...unknown[]]) => [expect.closeTo(kl, 9), ...rest]));
  expect(found).toHaveLength(2);
  expect(Math.min(...found.map(({ kl }) => kl))).toBeGreaterThan(0.01);
  const [first] = await edited.compare(llm);
  expect([first?.topToken, first?.otherTopString]).toEqual([found[0]?.otherTopToken, found[0]?.topString]);
});

test("a run beside itself", async () => {
  for (const { kl, topChanged } of await edited.compare(edited)) {
    expect([kl, topChanged]).toEqual([0, false]);
  }
});

test("runs that the server has lost are made again, each with its edits", async () => {
  const wanted = await llm.compare(edited);
  for (const lost of [[llm], [edited], [llm, edited]]) {
    await Promise.all(lost.map((each) => each.release()));
    expect(await llm.compare(edited)).toEqual(wanted);
  }
  await edited.release();
  expect(await edited.compare(edited)).toHaveLength(2);
});

test("unless that is not wanted", async () => {
  const plain = connect(inject("target"), { rerun: false });
  await plain.run(SENTENCES);
  await edited.release();
  await expect(plain.compare(edited)).rejects.toMatchObject({ name: "NotFoundError", reason: "RUN_NOT_FOUND" });
  plain.close();
});

test("with what has run nothing, is no client, or has other rows", async () => {
  const nothing = connect(inject("target"));
  await expect(llm.compare(nothing)).rejects.toMatchObject({ name: "NotRunError" });
  await expect(nothing.compare(llm)).rejects.toMatchObject({ name: "NotRunError" });
  await expect(llm.compare({} as never)).rejects.toThrow("what is compared with is a client");
  await nothing.run(["Hello"]);
  await expect(llm.compare(nothing)).rejects.toMatchObject({ name: "InvalidRequestError" });
  nothing.close();
});

test("position by position", async () => {
  const whole = await llm.compare(edited, { fromPos: 0 });
  const lengths = llm.last();
  expect(whole.map(({ klByPos }) => klByPos.length)).toEqual(lengths.map((last) => last + 1));
  for (const { kl, klByPos } of whole) {
    expect(klByPos.at(-1)).toBeCloseTo(kl, 4);
    expect(Math.min(...klByPos)).toBeGreaterThanOrEqual(0);
  }
  const shortest = Math.min(...lengths) + 1;
  const tail = await llm.compare(edited, { fromPos: -1 });
  expect(tail.map(({ klByPos }) => klByPos)).toEqual(
    whole.map(({ klByPos }) => klByPos.slice(shortest - 1).map((kl) => expect.closeTo(kl, 4))),
  );
  await expect(llm.compare(edited, { fromPos: shortest })).rejects.toMatchObject({ name: "IndexOutOfRangeError" });
  const elsewhere = llm.copy();
  await elsewhere.run(["My king, I shall reply", "Hello"]);
  await expect(llm.compare(elsewhere, { fromPos: 0 })).rejects.toMatchObject({ name: "InvalidRequestError" });
});

const ROW = { kl: 0.5, topId: 3, topString: "a", otherTopId: 4, otherTopString: "b" };
const RUN = { batchSize: 1, nPos: 1, tokenIds: [1] };

/** What becomes of a comparison of two runs of one token, each of which has an id of its own. */
async function compared(answers: Answers, features = ["compare_runs"], fromPos?: number): Promise<RowComparison[]> {
  const server = await ScriptedServer.start({
    serverInfo: () => ({ features }),
    run: ({ input }) => ({ ...RUN, runId: idOf(input), modelDigest: "0".repeat(64) }),
    ...answers,
  });
  const one = connect(server.address, { timeoutMs: 30_000 });
  const two = one.copy();
  try {
    await one.run(["one"]);
    await two.run(["two"]);
    return await one.compare(two, { fromPos });
  } finally {
    one.close();
    await server.close();
  }
}

function idOf(input: { case?: string | undefined; value?: unknown }): string {
  return input.case === "sentences" ? String((input.value as { sentences: string[] }).sentences[0]) : "";
}

test("an honest answer", async () => {
  const asked: string[] = [];
  const found = await compared({
    compareRuns: ({ runId, otherRunId }) => {
      asked.push(runId, otherRunId);
      return { rows: [{ ...ROW, topString: "a".repeat(5000) }] };
    },
  });
  expect(asked).toEqual(["one", "two"]);
  const strings = { topString: "a".repeat(1000), otherTopString: "b" };
  expect(found).toEqual([{ kl: 0.5, topToken: 3, otherTopToken: 4, topChanged: true, klByPos: [], ...strings }]);
});

test.each([
  ["no row", []],
  ["two rows", [ROW, ROW]],
  ["a divergence below 0", [{ ...ROW, kl: -1e-3 }]],
  ["a negative token", [{ ...ROW, topId: -1 }]],
  ["a negative token of the other", [{ ...ROW, otherTopId: -1 }]],
  ["positions that were not asked for", [{ ...ROW, klByPos: [0.5] }]],
])("an answer of %s", async (_, rows) => {
  await expect(compared({ compareRuns: () => ({ rows }) })).rejects.toMatchObject({ name: "InternalError" });
});

test.each([
  ["no position", []],
  ["one more", [0.5, 0.5]],
  ["a divergence below 0", [-1e-3]],
])("an answer of %s by position", async (_, klByPos) => {
  const lying = compared({ compareRuns: () => ({ rows: [{ ...ROW, klByPos }] }) }, ["compare_positions"], 0);
  await expect(lying).rejects.toMatchObject({ name: "InternalError" });
});

test("a server that knows no positions is not asked for them", async () => {
  await expect(compared({}, ["compare_runs"], 0)).rejects.toThrow("knows no compare_positions");
});

test("an older server is not asked", async () => {
  await expect(compared({}, ["edits"])).rejects.toThrow("knows no compare_runs");
});

test("another run that is lost each time is made so many times", async () => {
  let runs = 0;
  const losing = compared({
    run: ({ input }) => {
      runs += 1;
      return { ...RUN, runId: idOf(input), modelDigest: "0".repeat(64) };
    },
    compareRuns: () => {
      throw refusal(Code.NotFound, "RUN_NOT_FOUND", { run_id: "two" });
    },
  });
  await expect(losing).rejects.toMatchObject({ reason: "RUN_NOT_FOUND" });
  expect(runs).toBe(2 + 4);
});

test("another run is not compared when it is of another model by now", async () => {
  let runs = 0;
  const losing = compared({
    run: ({ input }) => ({ ...RUN, runId: idOf(input), modelDigest: String(runs++ < 2 ? 0 : 1).repeat(64) }),
    compareRuns: () => {
      throw refusal(Code.NotFound, "RUN_NOT_FOUND", { run_id: "two" });
    },
  });
  await expect(losing).rejects.toMatchObject({ name: "NotFoundError", reason: "MODEL_CHANGED" });
});
