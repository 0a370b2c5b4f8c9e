/** Edits with the real server, and with servers that do not make them. Values are compared by the conformance suite. */

import { afterEach, beforeEach, expect, inject, test } from "vitest";
import { add, EVERYWHERE, ffnOut, head, patch, residualIn, runValue, zero } from "../../src/interventions.js";
import { connect, type RemoteTransparentLlm } from "../../src/node.js";
import { type Answers, ScriptedServer } from "../support/scripted_server.js";

const ROW = [1, 2, 3, 4];
const EDITS = [zero(head(0, 1), EVERYWHERE)];

let llm: RemoteTransparentLlm;

beforeEach(() => {
  llm = connect(inject("target"), { timeoutMs: 30_000 });
});

afterEach(() => llm.close());

test("an edited run is made again edited", async () => {
  await llm.runTokens([ROW], { edits: EDITS });
  const [wanted, id, effects] = [await llm.logits(), llm.runId, llm.effects()];
  await llm.release();
  expect(await llm.logits()).toEqual(wanted);
  expect(llm.runId).toBe(id);
  expect(llm.effects()).toEqual(effects);
  expect(effects[0]?.changed).toBeGreaterThan(0);
  await llm.runTokens([ROW]);
  expect(llm.effects()).toEqual([]);
  expect(await llm.logits()).not.toEqual(wanted);
});

test("an edit takes from the run that its source had when the run was begun", async () => {
  const source = llm.copy();
  await source.runTokens([[9, 8, 7, 6]]);
  const value = runValue(ffnOut(0), source, { row: 0, pos: -1 });
  const edits = [patch(residualIn(1), source, { positions: [1], rows: [0] }), add(ffnOut(0), value, EVERYWHERE)];
  const running = llm.runTokens([ROW], { edits });
  await Promise.all([running, source.runTokens([[5, 5, 5, 5]])]);
  const wanted = await llm.logits();
  const other = source.copy();
  await other.runTokens([[9, 8, 7, 6]]);
  await Promise.all([llm.release(), other.release()]);
  expect(await llm.logits()).toEqual(wanted);
});

test("a source that has run nothing, or is none", async () => {
  const nothing = llm.copy();
  await expect(llm.runTokens([ROW], { edits: [patch(residualIn(1), nothing, EVERYWHERE)] })).rejects.toMatchObject({
    name: "NotRunError",
  });
  await expect(llm.runTokens([ROW], { edits: [patch(residualIn(1), {} as never, EVERYWHERE)] })).rejects.toMatchObject({
    name: "InvalidRequestError",
  });
  await expect(llm.runTokens([ROW], { edits: EDITS[0] as never })).rejects.toThrow("edits is an array of edits");
});

async function edited(features: string[]): Promise<[unknown, number]> {
  let runs = 0;
  const answers: Answers = {
    serverInfo: () => ({ features }),
    run: () => {
      runs += 1;
      return { runId: "r", batchSize: 1, nPos: 4, tokenIds: ROW, modelDigest: "0".repeat(64) };
    },
  };
  const server = await ScriptedServer.start(answers);
  const client = connect(server.address);
  const error = await client.runTokens([ROW], { edits: EDITS }).catch((thrown: unknown) => thrown);
  client.close();
  await server.close();
  return [error, runs];
}

test("a server that knows no edits is not sent any", async () => {
  const [error, runs] = await edited(["neuron_outputs"]);
  expect(error).toMatchObject({ name: "NotSupportedError", message: expect.stringContaining("knows no edits") });
  expect(runs).toBe(0);
});

test("a server that says to make edits and does not is found out", async () => {
  const [error, runs] = await edited(["edits"]);
  expect(error).toMatchObject({ name: "InternalError", message: expect.stringContaining("effects of 0 edits for 1") });
  expect(runs).toBe(1);
});
