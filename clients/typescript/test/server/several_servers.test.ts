/** Several servers of one model: each run lives on one of them, and on another when that one is gone. */

import { createServer, type Server } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { connect, type RemoteTransparentLlm } from "../../src/node.js";
import type { Child } from "../support/child.js";
import { startServer } from "../support/server.js";

const N_RUNS = 16;

let servers: Child[] = [];
let runs: RemoteTransparentLlm[] = [];

beforeAll(async () => {
  servers = await Promise.all([startServer(), startServer()]);
});

afterAll(() => Promise.all(servers.map((server) => server.stop())));

async function storedRuns(server: Child): Promise<number> {
  const llm = connect(server.said);
  const { storedRuns } = await llm.serverInfo();
  llm.close();
  return Number(storedRuns);
}

test("runs are spread over them, and each is read where it is", async () => {
  const llm = connect(
    servers.map(({ said }) => said),
    { rerun: false, cacheBytes: 0 },
  );
  runs = await Promise.all(
    Array.from({ length: N_RUNS }, async (_, i) => {
      const copy = llm.copy();
      await copy.runTokens([[i + 1, i + 2]]);
      return copy;
    }),
  );
  for (const run of runs) {
    expect((await run.residualOut(1)).shape).toEqual([1, 2, 128]);
  }
  const stored = await Promise.all(servers.map(storedRuns));
  expect(stored[0] as number).toBeGreaterThan(0);
  expect(stored[1] as number).toBeGreaterThan(0);
  expect((stored[0] as number) + (stored[1] as number)).toBe(N_RUNS);
  expect(await llm.isServing()).toBe(true);
  llm.close();
});

test("the order in which they are named does not matter", async () => {
  const before = await Promise.all(servers.map(storedRuns));
  const llm = connect(servers.map(({ said }) => said).reverse());
  for (let i = 0; i < N_RUNS; i++) {
    await llm.runTokens([[i + 1, i + 2]]);
  }
  expect(await Promise.all(servers.map(storedRuns))).toEqual(before);
  llm.close();
});

test("one that takes no connection is passed over, whatever it does with them", async () => {
  const deaf: Server = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve) => deaf.listen(0, "127.0.0.1", resolve));
  const { port } = deaf.address() as { port: number };
  const llm = connect([`127.0.0.1:${port}`, servers[0]?.said as string, "127.0.0.1:1"], { timeoutMs: 30_000 });
  for (let i = 0; i < N_RUNS; i++) {
    await llm.runTokens([[i + 1, i + 2]]);
    expect((await llm.residualOut(1)).shape).toEqual([1, 2, 128]);
  }
  llm.close();
  deaf.close();
});

test("runs of one that is gone are made again on the other", async () => {
  const llm = connect(
    servers.map(({ said }) => said),
    { timeoutMs: 30_000, cacheBytes: 0 },
  );
  const copies = await Promise.all(
    runs.map(async (_, i) => {
      const copy = llm.copy();
      await copy.runTokens([[i + 1, i + 2]]);
      return { copy, wanted: (await copy.residualOut(1)).bytes };
    }),
  );
  await servers[1]?.stop();
  for (const { copy, wanted } of copies) {
    expect((await copy.residualOut(1)).bytes).toEqual(wanted);
  }
  expect(await storedRuns(servers[0] as Child)).toBe(N_RUNS);
  llm.close();
});

test("all of them gone is told with their names", async () => {
  const nobody = connect(["127.0.0.1:1", "127.0.0.1:2"], { timeoutMs: 30_000 });
  await expect(nobody.serverInfo()).rejects.toThrow(/no server answers at 127.0.0.1:1, 127.0.0.1:2/);
  nobody.close();
});

test.each<[string[], string]>([
  [[], "an array of 1 to 64"],
  [Array.from({ length: 65 }, (_, i) => `127.0.0.1:${i + 1}`), "an array of 1 to 64"],
  [["127.0.0.1:1", "127.0.0.1:1"], "named twice"],
  [["127.0.0.1:1", "http://127.0.0.1:2"], "is not an address"],
])("targets that make no sense are refused (%#)", (targets, words) => {
  expect(() => connect(targets)).toThrow(words);
});
