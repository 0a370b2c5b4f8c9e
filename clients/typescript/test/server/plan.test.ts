/** Plans: what reads would bring, of a real server and of some that lie. */

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import type { PlanRequest } from "../../src/gen/transparent_llm/v1/service_pb.js";
import { TensorHeaderSchema } from "../../src/gen/transparent_llm/v1/tensor_pb.js";
import { connect, type Progress, type Read, type RemoteTransparentLlm, type Tensor } from "../../src/node.js";
import { chunkOf, DESCRIBED, startLiar } from "../support/liar.js";

let llm: RemoteTransparentLlm;

beforeAll(async () => {
  llm = connect(inject("target"), { cacheBytes: 0 });
  await llm.run(["My lord, I shall reply", "No"]);
});

afterAll(() => llm.close());

const READS: Read[] = [
  ["residualIn", 1],
  ["attentionOutput", 0, 1, 2],
  ["decomposedAttn", 0, 1],
  ["decomposedFfnOut", 0, 1, 2],
  ["tokens"],
  ["layerLens", 0, 2, { k: 3 }],
];

test.each([{}, { dtype: "BF16" }] as const)("each is what then comes, of %j", async (options) => {
  const planned = await llm.plan(READS, options);
  const came = await llm.fetchParts(READS, options);
  planned.forEach(({ name, shape, dims, dtype, bytes, parts }, i) => {
    const tensors = [...(came[i] as ReadonlyMap<string, Tensor>)];
    expect(tensors[0]?.[1]).toMatchObject({ shape, dims, dtype });
    expect(bytes).toBe(tensors.reduce((sum, [, tensor]) => sum + tensor.bytes.byteLength, 0));
    expect(name).toBe(READS[i]?.[0]);
    expect(parts.map((part) => part.name)).toEqual(parts.length > 0 ? tensors.map(([part]) => part) : []);
  });
});

test("factors are less than their product, and slices are of what is sent", async () => {
  const [product] = await llm.plan([["decomposedAttn", 0, 1]]);
  let received = 0;
  const onProgress = ({ receivedBytes }: Progress): void => {
    received = receivedBytes;
  };
  await llm.decomposedAttn(0, 1, { onProgress });
  expect(product?.transferBytes).toBe(received);
  expect(received).toBeLessThan((product?.bytes ?? 0) / 4);
  const slices = { target: { start: -1 } };
  const [part] = await llm.plan([["decomposedAttn", 0, 1]], { slices });
  expect(part?.bytes).toBe((await llm.decomposedAttn(0, 1, { slices })).bytes.byteLength);
  expect(part?.transferBytes).toBe(part?.bytes);
});

test("more reads than one call takes, and none", async () => {
  expect((await llm.plan(Array<Read>(2001).fill(["residualIn", 0]))).map(({ bytes }) => bytes)).toHaveLength(2001);
  expect(await llm.plan([])).toEqual([]);
});

test("a run that was lost is run again", async () => {
  const lost = llm.copy();
  await lost.run(["Once more"]);
  await lost.release();
  expect((await lost.plan([["logits"]]))[0]?.shape[1]).toBe(lost.tokens().shape[1]);
});

test("what makes no sense is refused", async () => {
  await expect(llm.plan([["modelInfo" as "logits"]])).rejects.toThrow("cannot be fetched");
  await expect(llm.plan([["residualIn", 99]])).rejects.toMatchObject({ name: "IndexOutOfRangeError" });
  await expect(llm.plan([["tokens"]], { slices: { d_model: {} } })).rejects.toThrow('has no axis "d_model"');
});

describe("of a server that lies", () => {
  const logits = (axes = { batch: 2, pos: 3, d_vocab: 8 }) =>
    chunkOf("logits", "F32", axes).header as MessageInitShape<typeof TensorHeaderSchema>;
  const residual = chunkOf("residual_in", "F32", { batch: 2, pos: 3, d_model: 4 }).header;

  test.each<[string, (request: PlanRequest) => object]>([
    ["too little", () => ({ tensors: [logits()] })],
    ["too much", () => ({ tensors: [logits(), logits(), logits()] })],
    ["of another shape", () => ({ tensors: [logits({ batch: 2, pos: 4, d_vocab: 8 }), logits()] })],
    ["of another value", () => ({ tensors: [residual, logits()] })],
    ["in other bytes", () => ({ tensors: [create(TensorHeaderSchema, { ...logits(), totalBytes: 1n }), logits()] })],
  ])("a plan that is %s", async (_, plan) => {
    const honest = await startLiar({ ...DESCRIBED, plan: () => ({ tensors: [logits(), logits()] }) });
    await honest.run(["one", "two"]);
    expect((await honest.plan([["logits"]]))[0]?.bytes).toBe(2 * 3 * 8 * 4);
    const liar = await startLiar({ ...DESCRIBED, plan: plan as never });
    await liar.run(["one", "two"]);
    await expect(liar.plan([["logits"]])).rejects.toMatchObject({ name: "InternalError" });
  });
});
