/** What the client makes of a server that answers something else than what it was asked. */

import { createHash } from "node:crypto";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { afterEach, describe, expect, test } from "vitest";
import { sizeOf, wireOfDtype } from "../../src/dtypes.js";
import { RunResponseSchema } from "../../src/gen/transparent_llm/v1/service_pb.js";
import type { TensorChunkSchema } from "../../src/gen/transparent_llm/v1/tensor_pb.js";
import { connect, type DtypeName, type RemoteTransparentLlm, type Tensor } from "../../src/node.js";
import type { ReadOptions } from "../../src/options.js";
import { type Answers, ScriptedServer } from "../support/scripted_server.js";

type Chunk = MessageInitShape<typeof TensorChunkSchema>;

const DIGEST = createHash("sha256").update("model").digest("hex");
/** Of two rows of three positions. */
const RUN = { runId: "r", batchSize: 2, nPos: 3, tokenIds: [1, 2, 3, 4, 5, 6], modelDigest: DIGEST };
const BROKEN = { name: "InternalError", reason: "INTERNAL" };

const closing: (() => void)[] = [];

afterEach(() => {
  for (const close of closing.splice(0)) {
    close();
  }
});

async function liar(answers: Answers): Promise<RemoteTransparentLlm> {
  const server = await ScriptedServer.start({ run: () => create(RunResponseSchema, RUN), ...answers });
  const llm = connect(server.address, { timeoutMs: 30_000, cacheBytes: 0 });
  closing.push(
    () => llm.close(),
    () => void server.close(),
  );
  return llm;
}

async function ran(answers: Answers): Promise<RemoteTransparentLlm> {
  const llm = await liar(answers);
  await llm.run(["one", "two"]);
  return llm;
}

/** Of two tokens and one. */
const TOP_TOKENS = { topIds: [5, 6], topLogits: [2, 1], bottomIds: [7], bottomLogits: [-3], logsumexp: 4 };

test.each<[string, Partial<typeof TOP_TOKENS>]>([
  ["too few tokens", { topIds: [5], topLogits: [2] }],
  ["too many tokens", { bottomIds: [7, 8], bottomLogits: [-3, -2] }],
  ["more tokens than logits", { topLogits: [2] }],
  ["more logits than tokens", { bottomIds: [] }],
  ["a negative token", { bottomIds: [-1] }],
  ["a logit that is no number", { topLogits: [2, Number.NaN] }],
  ["an endless sum", { logsumexp: Number.POSITIVE_INFINITY }],
])("top tokens with %s", async (_, part) => {
  const features = ["top_tokens"];
  const answering = async (answer: object) => liar({ serverInfo: () => ({ features }), topTokens: () => answer });
  const asked = { k: 2, bottomK: 1 };
  expect(await (await answering(TOP_TOKENS)).topTokens([1], asked)).toEqual(TOP_TOKENS);
  await expect((await answering({ ...TOP_TOKENS, ...part })).topTokens([1], asked)).rejects.toMatchObject(BROKEN);
});

/** A tensor of zeros. */
function zeros(name: string, dtype: DtypeName, axes: Record<string, number>): Chunk {
  const [dims, shape] = [Object.keys(axes), Object.values(axes)];
  const bytes = shape.reduce((product, length) => product * length, sizeOf(dtype));
  const header = {
    name,
    dtype: wireOfDtype(dtype),
    shape: shape.map(BigInt),
    dims,
    totalBytes: BigInt(bytes),
    etag: "e",
  };
  return { header, data: new Uint8Array(bytes) };
}

interface Honest {
  readonly name: string;
  readonly axes: Record<string, number>;
  readonly answers: (chunk: Chunk) => Answers;
  readonly read: (llm: RemoteTransparentLlm, options?: ReadOptions) => Promise<Tensor>;
}

async function* streamed(...chunks: Chunk[]): AsyncGenerator<Chunk> {
  yield* chunks;
}

/** What is answered for that run by a model of four dimensions. */
const HONEST: Honest[] = [
  {
    name: "logits",
    axes: { batch: 2, pos: 3, d_vocab: 8 },
    answers: (chunk) => ({ logits: () => streamed(chunk) }),
    read: (llm, options) => llm.logits(options),
  },
  {
    name: "residual_in",
    axes: { batch: 2, pos: 3, d_model: 4 },
    answers: (chunk) => ({ residualIn: () => streamed(chunk) }),
    read: (llm, options) => llm.residualIn(0, options),
  },
  {
    name: "attention_matrix",
    axes: { query_pos: 3, key_pos: 3 },
    answers: (chunk) => ({ attentionMatrix: () => streamed(chunk) }),
    read: (llm, options) => llm.attentionMatrix(0, 0, 0, options),
  },
  {
    name: "decomposed_attn",
    axes: { target: 3, source: 3, head: 1, d_model: 4 },
    answers: (chunk) => ({ decomposedAttn: () => streamed(chunk) }),
    read: (llm, options) => llm.decomposedAttn(0, 0, options),
  },
  {
    name: "ffn_out",
    axes: { batch: 2, pos: 3, d_model: 4 },
    answers: (chunk) => ({ fetch: () => streamed(chunk) }),
    read: async (llm, options) => (await llm.fetch([["ffnOut", 0]], options))[0] as Tensor,
  },
  {
    name: "neuron_output",
    axes: { d_model: 4 },
    answers: (chunk) => ({ neuronOutput: () => streamed(chunk) }),
    read: (llm, options) => llm.neuronOutput(0, 0, options),
  },
];

describe.each(HONEST)("$name", ({ name, axes, answers, read }) => {
  test("as it was asked for", async () => {
    const value = await read(await ran(answers(zeros(name, "F32", axes))));
    expect(value.shape).toEqual(Object.values(axes));
  });

  const first = Object.keys(axes)[0] as string;
  const { [first]: length, ...others } = axes;
  test.each<[string, Chunk]>([
    ["another name", zeros("tokens", "F32", axes)],
    ["a factor", zeros(`${name}.gain`, "F32", axes)],
    ["another axis", zeros(name, "F32", { nonsense: length as number, ...others })],
    ["an axis more", zeros(name, "F32", { ...axes, more: 1 })],
    ["no axes", zeros(name, "F32", {})],
    ["integers", zeros(name, "I32", axes)],
    ["BOOL", zeros(name, "BOOL", axes)],
    ...(name === "neuron_output"
      ? []
      : ([
          ["a longer run", zeros(name, "F32", { ...axes, [first]: (length as number) + 1 })],
          ["an empty run", zeros(name, "F32", { ...axes, [first]: 0 })],
        ] satisfies [string, Chunk][])),
  ])("%s", async (_, chunk) => {
    await expect(read(await ran(answers(chunk)))).rejects.toMatchObject(BROKEN);
  });

  test("another type than was asked for", async () => {
    const llm = await ran(answers(zeros(name, "F32", axes)));
    await expect(read(llm, { dtype: "BF16" })).rejects.toMatchObject(BROKEN);
  });
});

test.each([
  [{ batch: 1, pos: 1, d_model: 4 }, true],
  [{ batch: 1, pos: 3, d_model: 4 }, false],
  [{ batch: 2, pos: 1, d_model: 4 }, false],
])("a part of %j", async (axes, fits) => {
  const llm = await ran({ residualIn: () => streamed(zeros("residual_in", "F32", axes)) });
  const part = llm.residualIn(0, { slices: { pos: { start: -1 }, batch: { stop: 9, step: 5 } } });
  await (fits ? expect(part).resolves.toBeDefined() : expect(part).rejects.toMatchObject(BROKEN));
});

const PATTERN = zeros("decomposed_attn.pattern", "F32", { head: 1, target: 3, source: 3 });
const OFFERED = zeros("decomposed_attn.value_out", "F32", { source: 3, head: 1, d_model: 4 });

test("factors of the run", async () => {
  const llm = await ran({ decomposedAttn: () => streamed(PATTERN, OFFERED, zeros("decomposed_attn.gain", "F32", {})) });
  expect((await llm.decomposedAttn(0, 0)).shape).toEqual([3, 3, 1, 4]);
});

test.each<[string, Chunk[]]>([
  ["of more positions", [zeros("decomposed_attn.pattern", "F32", { head: 1, target: 4, source: 4 }), OFFERED]],
  ["of other axes", [zeros("decomposed_attn.pattern", "F32", { target: 1, head: 3, source: 3 }), OFFERED]],
  ["of integers", [zeros("decomposed_attn.pattern", "I32", { head: 1, target: 3, source: 3 }), OFFERED]],
  ["in halves", [PATTERN, zeros("decomposed_attn.value_out", "F16", { source: 3, head: 1, d_model: 4 })]],
  ["that nobody knows", [PATTERN, OFFERED, zeros("decomposed_attn.more", "F32", {})]],
  ["in another order", [OFFERED, PATTERN]],
])("factors %s", async (_, chunks) => {
  const llm = await ran({ decomposedAttn: () => streamed(...chunks) });
  await expect(llm.decomposedAttn(0, 0)).rejects.toMatchObject(BROKEN);
});

test.each<[string, object]>([
  ["no run", { batchSize: 0, nPos: 0, tokenIds: [] }],
  ["other rows", { batchSize: 3, nPos: 2 }],
  ["a product past 32 bits", { batchSize: 2 ** 31, nPos: 2 ** 31 }],
  ["rows of nothing", { batchSize: 2, nPos: 0, tokenIds: [] }],
  ["half a mask", { mask: [true, true, true] }],
  ["no name", { runId: "" }],
  ["a name of a megabyte", { runId: "x".repeat(2 ** 20) }],
  ["no digest", { modelDigest: "" }],
  ["a path", { modelDigest: `../../${DIGEST}` }],
  ["a longer digest", { modelDigest: `${DIGEST}0` }],
  ["a line break after the digest", { modelDigest: `${DIGEST}\n` }],
  ["capitals", { modelDigest: "A".repeat(64) }],
  ["control characters", { modelDigest: "\x1b".repeat(64) }],
])("an answer to Run with %s", async (_, lie) => {
  const llm = await liar({ run: () => create(RunResponseSchema, { ...RUN, ...lie }) });
  const error = await llm.run(["one", "two"]).catch((thrown: Error) => thrown);
  expect(error).toMatchObject(BROKEN);
  expect((error as Error).message).toMatch(/^[\x20-\x7e\ufffd]{1,500}$/);
});

test("an answer to Run with other positions than were sent", async () => {
  const llm = await liar({});
  await expect(llm.runTokens([[1, 2], [3]])).rejects.toMatchObject(BROKEN);
});

test.each([
  [DIGEST, true],
  ["", true],
  ["../x", false],
  ["/etc/passwd", false],
  ["F".repeat(64), false],
])("a model with the digest %j", async (digest, fits) => {
  const llm = await liar({ serverInfo: () => ({ models: [{ digest }] }) });
  await (fits
    ? expect(llm.serverInfo()).resolves.toBeDefined()
    : expect(llm.serverInfo()).rejects.toMatchObject(BROKEN));
});

test("fewer strings than tokens", async () => {
  const llm = await liar({ tokensToStrings: () => ({ strings: ["a"] }) });
  await expect(llm.tokensToStrings([1, 2])).rejects.toMatchObject(BROKEN);
});

describe("output vectors", () => {
  const answers = (outputs: Chunk, model = { digest: DIGEST, dFfn: [2], info: { dModel: 4 } }): Answers => ({
    serverInfo: () => ({ features: ["neuron_outputs"], models: [model] }),
    decomposedFfnOut: () => streamed(zeros("decomposed_ffn_out.activations", "F32", { d_ffn: 2 })),
    neuronOutputs: () => streamed(outputs),
  });
  const right = zeros("neuron_outputs", "F32", { d_ffn: 2, d_model: 4 });

  test("of the model", async () => {
    const llm = await ran(answers(right));
    expect((await llm.decomposedFfnOut(0, 0, 0)).shape).toEqual([2, 4]);
  });

  test.each<[string, Chunk]>([
    ["that are wider", zeros("neuron_outputs", "F32", { d_ffn: 2, d_model: 5 })],
    ["of more neurons", zeros("neuron_outputs", "F32", { d_ffn: 3, d_model: 4 })],
    ["turned", zeros("neuron_outputs", "F32", { d_model: 4, d_ffn: 2 })],
    ["of integers", zeros("neuron_outputs", "I32", { d_ffn: 2, d_model: 4 })],
    ["of which one came", zeros("neuron_output", "F32", { d_model: 4 })],
  ])("%s", async (_, outputs) => {
    const llm = await ran(answers(outputs));
    await expect(llm.decomposedFfnOut(0, 0, 0)).rejects.toMatchObject(BROKEN);
  });

  test("of a model that no memory holds are not asked for", async () => {
    const huge = { digest: DIGEST, dFfn: [2 ** 32 - 1], info: { dModel: 2 ** 32 - 1 } };
    const llm = await ran(answers(right, huge));
    await expect(llm.decomposedFfnOut(0, 0, 0)).rejects.toMatchObject(BROKEN); // factors that were not asked for
  });
});

test("a stream without end ends with its time", async () => {
  const llm = await ran({
    async *residualIn() {
      yield { header: (zeros("residual_in", "F32", { batch: 2, pos: 3, d_model: 4 }) as Chunk).header } as Chunk;
      for (;;) {
        yield {};
      }
    },
  });
  await expect(llm.residualIn(0, { timeoutMs: 1000 })).rejects.toMatchObject({ name: "DeadlineError" });
});

test("a stream in crumbs is not asked for without a pause", async () => {
  let calls = 0;
  const axes = { batch: 2, pos: 3, d_model: 2 ** 16 };
  const { header } = zeros("residual_in", "F32", axes);
  const llm = await ran({
    async *residualIn({ options }) {
      calls++;
      yield { header, offset: options?.resumeOffset ?? 0n, data: Uint8Array.of(1) } as Chunk;
      throw new ConnectError("gone", Code.Unavailable);
    },
  });
  await expect(llm.residualIn(0, { timeoutMs: 1000 })).rejects.toMatchObject({ name: "DeadlineError" });
  expect(calls).toBeLessThanOrEqual(25);
});
