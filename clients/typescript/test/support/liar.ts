/** Clients of servers that answer as a test says, which end with the test. */

import { createHash } from "node:crypto";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { onTestFinished } from "vitest";
import { sizeOf, wireOfDtype } from "../../src/dtypes.js";
import { RunResponseSchema } from "../../src/gen/transparent_llm/v1/service_pb.js";
import type { TensorChunkSchema } from "../../src/gen/transparent_llm/v1/tensor_pb.js";
import { connect, type DtypeName, type NodeOptions, type RemoteTransparentLlm } from "../../src/node.js";
import { ScriptedServer } from "./scripted_server.js";

export type Chunk = MessageInitShape<typeof TensorChunkSchema>;

/** Answers by RPC: a message, or the messages of a stream. */
type Answers = Readonly<Record<string, (request: never) => object | readonly object[]>>;

export const DIGEST = createHash("sha256").update("model").digest("hex");
/** Of two rows of three positions. */
export const RUN = { runId: "r", batchSize: 2, nPos: 3, tokenIds: [1, 2, 3, 4, 5, 6], modelDigest: DIGEST };

/** What a server says that knows everything, of a model of two layers of two heads and four dimensions. */
export const DESCRIBED: Answers = {
  serverInfo: () => ({
    features: ["circuits", "gradients", "plan", "neuron_outputs"],
    models: [{ info: { name: "m", nLayers: 2, nHeads: 2, dModel: 4, dVocab: 8 }, digest: DIGEST, dFfn: [6, 6] }],
  }),
  run: () => create(RunResponseSchema, RUN),
};

/** A client of such a server. */
export async function startLiar(answers: Answers, options: NodeOptions = {}): Promise<RemoteTransparentLlm> {
  const answering = Object.entries(answers).map(([rpc, answer]) => [
    rpc,
    (request: never) => {
      const answered = answer(request);
      return Array.isArray(answered) ? streamed(answered) : answered;
    },
  ]);
  const server = await ScriptedServer.start(Object.fromEntries(answering));
  const llm = connect(server.address, { timeoutMs: 30_000, cacheBytes: 0, ...options });
  onTestFinished(async () => {
    llm.close();
    await server.close();
  });
  return llm;
}

/** A tensor of zeros, or of these bytes, as it is sent. */
export function chunkOf(name: string, dtype: DtypeName, axes: Record<string, number>, data?: Uint8Array): Chunk {
  const [dims, shape] = [Object.keys(axes), Object.values(axes)];
  const bytes = data ?? new Uint8Array(shape.reduce((product, length) => product * length, sizeOf(dtype)));
  const header = { name, dtype: wireOfDtype(dtype), shape: shape.map(BigInt), dims };
  return { header: { ...header, totalBytes: BigInt(bytes.byteLength), etag: "e" }, data: bytes };
}

async function* streamed(messages: readonly object[]): AsyncGenerator<object> {
  yield* messages;
}
