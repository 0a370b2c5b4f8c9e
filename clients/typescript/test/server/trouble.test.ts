/** What the client makes of a server in trouble, and of one that breaks the protocol. */

import { createHash } from "node:crypto";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect";
import { afterEach, describe, expect, test } from "vitest";
import { RunResponseSchema } from "../../src/gen/transparent_llm/v1/service_pb.js";
import { Dtype, Encoding, type TensorChunkSchema } from "../../src/gen/transparent_llm/v1/tensor_pb.js";
import { connect, type NodeOptions, type RemoteTransparentLlm } from "../../src/node.js";
import { type Answers, refusal, ScriptedServer } from "../support/scripted_server.js";

function digestOf(model: string): string {
  return createHash("sha256").update(model).digest("hex");
}

type Chunk = MessageInitShape<typeof TensorChunkSchema>;

const RESPONSE = { runId: "r", batchSize: 1, nPos: 1, tokenIds: [7], mask: [true], modelDigest: digestOf("d") };

let closing: (() => void)[] = [];

afterEach(() => {
  for (const close of closing.splice(0)) {
    close();
  }
});

async function client(answers: Answers, options: NodeOptions = {}): Promise<RemoteTransparentLlm> {
  const server = await ScriptedServer.start({ run: () => create(RunResponseSchema, RESPONSE), ...answers });
  const llm = connect(server.address, { timeoutMs: 30_000, cacheBytes: 0, ...options });
  closing = [...closing, () => llm.close(), () => void server.close()];
  return llm;
}

/** A residual or logits of one position in F16, or a part of its bytes from an offset on. */
function chunk(
  name: string,
  bytes: number[],
  { size = bytes.length, offset = 0, etag = "e", dtype = Dtype.F16 } = {},
): Chunk {
  const shape = [1n, 1n, BigInt(size / 2)];
  const dims = ["batch", "pos", name === "logits" ? "d_vocab" : "d_model"];
  return {
    header: { name, dtype, shape, dims, totalBytes: BigInt(size), etag },
    offset: BigInt(offset),
    data: Uint8Array.from(bytes),
  };
}

describe("a model that is loaded", () => {
  test("is waited for as long as the server says", async () => {
    let calls = 0;
    const llm = await client({
      run: () => {
        if (calls++ < 2) {
          throw refusal(Code.Unavailable, "LOADING", { model: "m", state: "loading" }, 20);
        }
        return create(RunResponseSchema, RESPONSE);
      },
    });
    await llm.run(["x"]);
    expect(calls).toBe(3);
  });

  test("but not beyond the call's time", async () => {
    const llm = await client({
      run: () => {
        throw refusal(Code.Unavailable, "LOADING", { model: "m" }, 900_000);
      },
    });
    const wanted = { name: "UnavailableError", reason: "LOADING", metadata: { model: "m" }, retryAfterS: 900 };
    await expect(llm.run(["x"], { timeoutMs: 30_000 })).rejects.toMatchObject(wanted);
  });
});

test.each([[-900], [0.000_001]])("a server that says %d ms is not asked without a pause", async (retryMs) => {
  let calls = 0;
  const llm = await client({
    run: () => {
      calls++;
      throw refusal(Code.Unavailable, "LOADING", { model: "m" }, retryMs);
    },
  });
  await expect(llm.run(["x"], { timeoutMs: 400 })).rejects.toMatchObject({ name: /UnavailableError|DeadlineError/ });
  expect(calls).toBeLessThanOrEqual(400 / 50 + 1);
});

test("a busy server is asked again when it says, within the call's time", async () => {
  let calls = 0;
  const llm = await client({
    run: () => {
      calls++;
      throw refusal(Code.ResourceExhausted, "BUSY", {}, calls < 3 ? 20 : 900_000);
    },
  });
  await expect(llm.run(["x"])).rejects.toMatchObject({ name: "BusyError", reason: "BUSY", retryAfterS: 900 });
  expect(calls).toBe(3);
});

describe("a server that was reached before", () => {
  test.each([
    ["drains", refusal(Code.Unavailable, "DRAINING")],
    ["starts", refusal(Code.Unavailable, "LOADING")],
    ["cancels what it has not begun", refusal(Code.Canceled, "CANCELLED")],
    ["is gone behind its proxy", new ConnectError("Received RST_STREAM with error code 2", Code.Internal)],
    ["is not there for its proxy", new ConnectError("no healthy upstream", Code.Unavailable)],
  ])("is asked again when it %s", async (_, error) => {
    let calls = 0;
    const llm = await client({
      async *logits() {
        if (calls++ < 2) {
          throw error;
        }
        yield chunk("logits", [1, 2]);
      },
    });
    await llm.run(["x"]);
    expect([...(await llm.logits()).bytes]).toEqual([1, 2]);
    expect(calls).toBe(3);
  });

  test("is not asked again after a bug", async () => {
    let calls = 0;
    const llm = await client({
      async *logits() {
        calls++;
        throw refusal(Code.Internal, "INTERNAL", { incident: "i" });
      },
    });
    await llm.run(["x"]);
    await expect(llm.logits()).rejects.toMatchObject({ name: "InternalError", metadata: { incident: "i" } });
    expect(calls).toBe(1);
  });
});

describe("an interrupted stream", () => {
  test("is taken up with what came and its etag", async () => {
    const asked: [bigint, string][] = [];
    const llm = await client({
      async *residualIn({ options }) {
        asked.push([options?.resumeOffset ?? 0n, options?.etag ?? ""]);
        if (asked.length === 1) {
          yield chunk("residual_in", [1, 2], { size: 4 });
          throw new ConnectError("gone", Code.Unavailable);
        }
        yield chunk("residual_in", [3, 4], { size: 4, offset: 2 });
      },
    });
    await llm.run(["x"]);
    expect([...(await llm.residualIn(0)).bytes]).toEqual([1, 2, 3, 4]);
    expect(asked).toEqual([
      [0n, ""],
      [2n, "e"],
    ]);
  });

  test("begins again with another etag, as does its progress", async () => {
    let calls = 0;
    const llm = await client({
      async *residualIn() {
        if (calls++ === 0) {
          yield chunk("residual_in", [1, 2], { size: 4 });
          throw new ConnectError("gone", Code.Unavailable);
        }
        yield chunk("residual_in", [9, 9, 9, 9], { etag: "f" });
      },
    });
    await llm.run(["x"]);
    const seen: number[] = [];
    const value = await llm.residualIn(0, { onProgress: ({ receivedBytes }) => seen.push(receivedBytes) });
    expect([...value.bytes]).toEqual([9, 9, 9, 9]);
    expect(seen).toEqual([2, 4]);
  });
});

describe("a lost run", () => {
  test("of another model by now is not read", async () => {
    let runs = 0;
    const llm = await client({
      run: () => create(RunResponseSchema, { ...RESPONSE, modelDigest: digestOf(`d${runs++}`) }),
      async *logits() {
        throw refusal(Code.NotFound, "RUN_NOT_FOUND", { run_id: "r" });
      },
    });
    await llm.run(["x"]);
    const wanted = {
      name: "NotFoundError",
      reason: "MODEL_CHANGED",
      metadata: { was: digestOf("d0"), is: digestOf("d1") },
    };
    await expect(llm.logits()).rejects.toMatchObject(wanted);
  });

  test("that is lost each time is made three times", async () => {
    let runs = 0;
    const llm = await client({
      run: () => {
        runs++;
        return create(RunResponseSchema, RESPONSE);
      },
      async *logits() {
        throw refusal(Code.NotFound, "RUN_NOT_FOUND", { run_id: "r" });
      },
    });
    await llm.run(["x"]);
    await expect(llm.logits()).rejects.toMatchObject({ reason: "RUN_NOT_FOUND" });
    expect(runs).toBe(1 + 3);
  });
});

describe("a stream that breaks the protocol", () => {
  test.each<[string, Chunk[]]>([
    ["nothing", []],
    ["an early end", [chunk("logits", [1], { size: 4 })]],
    ["a gap", [chunk("logits", [1], { size: 6 }), { offset: 2n, data: Uint8Array.of(3) }]],
    ["two tensors", [chunk("logits", [1, 1]), chunk("logits", [1, 1])]],
    ["another tensor", [chunk("tokens", [1, 1])]],
    ["factors that belong to nothing", [chunk("logits.gain", [1, 1])]],
    ["another etag", [chunk("logits", [1, 1]), chunk("logits", [1, 1], { etag: "f" })]],
    ["an unknown dtype", [chunk("logits", [1, 1], { dtype: 77 as Dtype })]],
  ])("%s", async (_, chunks) => {
    const llm = await client({
      async *logits() {
        yield* chunks;
      },
    });
    await llm.run(["x"]);
    await expect(llm.logits()).rejects.toMatchObject({ name: "InternalError", reason: "INTERNAL" });
  });

  test("a floating type that was not asked for", async () => {
    const llm = await client({
      async *logits() {
        yield {
          ...chunk("logits", [0, 0]),
        };
      },
    });
    await llm.run(["x"]);
    await expect(llm.logits({ dtype: "F32" })).rejects.toMatchObject({ name: "InternalError" });
  });

  test("an answer to Run that contradicts itself", async () => {
    const llm = await client({ run: () => create(RunResponseSchema, { ...RESPONSE, nPos: 2 }) });
    await expect(llm.run(["x"])).rejects.toMatchObject({ name: "InternalError" });
  });

  test("a run of more rows than were asked for", async () => {
    const twoRows = { ...RESPONSE, batchSize: 2, tokenIds: [7, 7], mask: [true, true] };
    const llm = await client({ run: () => create(RunResponseSchema, twoRows) });
    await expect(llm.run(["x"])).rejects.toMatchObject({ name: "InternalError" });
  });

  test("a larger tensor than this client takes ends the call on the server too", async () => {
    const ended = deferred();
    const llm = await client(
      {
        async *logits(_, { signal }) {
          signal.addEventListener("abort", () => ended.resolve(undefined));
          yield chunk("logits", [1], { size: 2000 });
          await ended.promise;
        },
      },
      { maxBytes: 1000 },
    );
    await llm.run(["x"]);
    await expect(llm.logits()).rejects.toMatchObject({ name: "TooLargeError" });
    await ended.promise;
  });
});

test("a cancelled call is cancelled on the server", async () => {
  const ended = deferred();
  const begun = deferred();
  const llm = await client({
    async *logits(_, { signal }: HandlerContext) {
      signal.addEventListener("abort", () => ended.resolve(undefined));
      begun.resolve(undefined);
      await ended.promise;
    },
  });
  await llm.run(["x"]);
  const canceller = new AbortController();
  const read = llm.logits({ signal: canceller.signal });
  await begun.promise;
  canceller.abort();
  await expect(read).rejects.toMatchObject({ name: "CancelledError" });
  await ended.promise;
});

test("no reads give no values, without a call", async () => {
  let calls = 0;
  const llm = await client({
    async *fetch() {
      calls++;
      yield chunk("logits", [1, 1]);
    },
  });
  await llm.run(["x"]);
  expect(await llm.fetch([])).toEqual([]);
  expect(calls).toBe(0);
});

describe("of runs at the same time", () => {
  /** That of "first" is answered when it is told to. */
  const answersAfter = (first: Promise<unknown>): Answers => ({
    run: async ({ input }) => {
      const { sentences } = input.value as { sentences: string[] };
      if (sentences[0] === "first") {
        await first;
      } else if (sentences[0] === "wrong") {
        throw refusal(Code.InvalidArgument, "EMPTY_INPUT");
      }
      return create(RunResponseSchema, { ...RESPONSE, runId: sentences[0] as string });
    },
  });

  test("the one that was called last is current, not the one that was done last", async () => {
    const first = deferred();
    const llm = await client(answersAfter(first.promise));
    const early = llm.run(["first"]);
    await llm.run(["second"]);
    expect(llm.runId).toBe("second");
    first.resolve(undefined);
    await early;
    expect(llm.runId).toBe("second");
    await llm.run(["first"]);
    expect(llm.runId).toBe("first");
  });

  test("one that failed is none", async () => {
    const first = deferred();
    const llm = await client(answersAfter(first.promise));
    const early = llm.run(["first"]);
    await expect(llm.run(["wrong"])).rejects.toMatchObject({ reason: "EMPTY_INPUT" });
    first.resolve(undefined);
    await early;
    expect(llm.runId).toBe("first");
  });
});

test("what is sent with each call", async () => {
  const sent: [string, string | null, string | null][] = [];
  const note = (rpc: string, { requestHeader }: HandlerContext): void => {
    sent.push([rpc, requestHeader.get("x-transparent-llm-run-key"), requestHeader.get("authorization")]);
  };
  const llm = await client(
    {
      run: (_, context) => {
        note("run", context);
        return create(RunResponseSchema, RESPONSE);
      },
      async *logits(_, context) {
        note("logits", context);
        yield chunk("logits", [1, 1]);
      },
      async *fetch(_, context) {
        note("fetch", context);
        yield chunk("logits", [1, 1]);
      },
      releaseRun: (_, context) => {
        note("releaseRun", context);
        return {};
      },
      serverInfo: (_, context) => {
        note("serverInfo", context);
        return {};
      },
    },
    { token: "secret" },
  );
  await llm.run(["My lord"]);
  await llm.logits();
  await llm.fetch([["logits"]]);
  await llm.release();
  await llm.serverInfo();
  const key = "9841dc0f1bb678c3bbf83da1162d81c1";
  const ofRun = ["run", "logits", "fetch", "releaseRun"].map((rpc) => [rpc, key, "Bearer secret"]);
  expect(sent).toEqual([...ofRun, ["serverInfo", null, "Bearer secret"]]);
});

test("weights come once for all who ask at once, with the digest of the run", async () => {
  const digests: string[] = [];
  const f32 = (name: string, dims: string[], shape: bigint[], values: number[]): Chunk => ({
    header: { name, dtype: Dtype.F32, shape, dims, totalBytes: BigInt(values.length * 4), etag: "e" },
    data: new Uint8Array(Float32Array.from(values).buffer),
  });
  const dFfn = [0, 0, 0, 0, 0, 2];
  const models = [{ digest: digestOf("d"), dFfn, info: { dModel: 2 } }];
  const llm = await client({
    serverInfo: () => ({ features: ["neuron_outputs"], models }),
    async *decomposedFfnOut({ options }) {
      expect(options?.encoding).toBe(Encoding.FACTORED);
      yield f32("decomposed_ffn_out.activations", ["d_ffn"], [2n], [2, 3]);
    },
    async *neuronOutputs({ modelDigest }) {
      digests.push(modelDigest);
      yield f32("neuron_outputs", ["d_ffn", "d_model"], [2n, 2n], [1, 2, 3, 4]);
    },
  });
  await llm.run(["x"]);
  const values = await Promise.all([0, 1, 2].map((pos) => llm.decomposedFfnOut(0, 5, pos)));
  expect(values.map((value) => [...value.toFloat32()])).toEqual(Array(3).fill([2, 4, 9, 12]));
  expect(digests).toEqual([digestOf("d")]);
});

function deferred(): { promise: Promise<unknown>; resolve: (value: unknown) => void } {
  let resolve: (value: unknown) => void = () => {};
  const promise = new Promise((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}
