/**
 * Both drivers of the conformance suite, behind a proxy that interrupts: in Node by gRPC, in Chromium by gRPC-Web through
 * Envoy.
 */

import { create, toBinary } from "@bufbuild/protobuf";
import { base64Encode } from "@bufbuild/protobuf/wire";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { Dtype, TensorChunkSchema } from "../../src/gen/transparent_llm/v1/tensor_pb.js";
import type { Child } from "../support/child.js";
import { Driver } from "../support/driver.js";
import { startEnvoy } from "../support/envoy.js";
import { FaultyProxy } from "../support/faulty_proxy.js";

const ROW = Array.from({ length: 60 }, (_, i) => i + 1);
const DENSE = { slices: { d_model: [0, null, null] } };

describe.each([
  ["typescript-node", "driver.js", false],
  ["typescript-browser", "browser.js", true],
] as const)("%s", (name, script, isBehindEnvoy) => {
  let envoy: Child | undefined;
  let proxy: FaultyProxy;
  let driver: Driver;

  beforeAll(async () => {
    envoy = isBehindEnvoy ? await startEnvoy(inject("target")) : undefined;
    proxy = await FaultyProxy.before(envoy?.said ?? inject("target"));
    driver = new Driver(script);
    expect((await driver.ask("hello")).ok).toMatchObject({ client: name });
    await driver.ask("connect", { target: proxy.address, options: { timeout_s: 30 } });
    await driver.call("run_tokens", [[ROW]]);
  });

  afterAll(async () => {
    expect(await driver.end()).toBe(0);
    await proxy.close();
    await envoy?.endInput();
  });

  test("errors come with their details", async () => {
    const { error } = await driver.call("residual_in", [99]);
    expect(error).toMatchObject({ class: "IndexOutOfRangeError", metadata: { axis: "layer", got: "99", size: "4" } });
    expect((await driver.call("run", [[]])).error).toMatchObject({
      class: "InvalidRequestError",
      reason: "EMPTY_INPUT",
    });
    expect((await driver.call("nope")).error).toMatchObject({ class: "DriverError" });
  });

  test("tensors come with their numbers", async () => {
    const { ok } = await driver.call("attention_matrix", [0, 1, 2], {
      dtype: "BF16",
      slices: { query_pos: [1, 2, null] },
    });
    const { dtype, shape, dims, data, values } = ok.tensor;
    expect([dtype, shape, dims]).toEqual(["BF16", [1, 60], ["query_pos", "key_pos"]]);
    expect(Buffer.from(data, "base64").length).toBe(120);
    const numbers = new Float64Array(new Uint8Array(Buffer.from(values, "base64")).buffer);
    expect(numbers.reduce((a, b) => a + b)).toBeCloseTo(1, 1);
  });

  test("an interrupted transfer goes on where it was", async () => {
    const wanted = await driver.call("decomposed_attn", [0, 1], DENSE);
    proxy.interruptAfter(3_000_000, 2_000_000);
    const { ok } = await driver.call("decomposed_attn", [0, 1], { ...DENSE, progress: true });
    expect(proxy.interruptions).toBe(2);
    expect(ok.tensor.data === wanted.ok.tensor.data).toBe(true);
    const received = ok.progress.map(([bytes]: [number, number]) => bytes);
    expect(received).toEqual([...received].sort((a, b) => a - b));
    expect(received.at(-1)).toBe(60 * 60 * 4 * 128 * 4);
  });

  test("a released run is made again", async () => {
    expect((await driver.call("release")).ok).toEqual({ value: null });
    expect((await driver.call("logits", [], { slices: { pos: [-1, null, null] } })).ok.tensor.shape).toEqual([
      1, 1, 1024,
    ]);
  });

  test("a cancelled call leaves the client usable", async () => {
    proxy.hold();
    const { error } = await driver.call("logits", [], { cancel_after_s: 0.2 });
    expect(error).toMatchObject({ class: "CancelledError", reason: "CANCELLED" });
    proxy.release();
    expect((await driver.call("batch_size")).ok).toEqual({ value: 1 });
    expect((await driver.call("is_serving")).ok).toEqual({ value: true });
  });

  test("nobody there", async () => {
    await driver.ask("connect", { target: "127.0.0.1:1", llm: "nobody" });
    const { error } = await driver.call("model_info", [], { llm: "nobody" });
    expect(error).toMatchObject({ class: "UnavailableError", reason: "UNAVAILABLE" });
  });

  test("streams without a server", async () => {
    const header = { name: "t", dtype: Dtype.F32, shape: [2n], dims: ["pos"], totalBytes: 8n, etag: "e" };
    const [first, second] = [0, 4].map((offset) => {
      const data = new Uint8Array(Float32Array.of(offset).buffer);
      return base64Encode(
        toBinary(TensorChunkSchema, create(TensorChunkSchema, { header, offset: BigInt(offset), data })),
      );
    });
    const { ok } = await driver.ask("decode", { streams: [[first], [second]] });
    expect(ok.tensors).toMatchObject([{ name: "t", dtype: "F32", shape: [2], dims: ["pos"] }]);
    expect(ok.resumes).toEqual([{ offset: 4, etag: "e" }]);
    expect((await driver.ask("decode", { streams: [[second]] })).error).toMatchObject({ class: "InternalError" });
    const reset = await driver.ask("decode_error", { code: 13, message: "RST_STREAM", details: null });
    expect(reset.ok.error).toMatchObject({ class: "UnavailableError" });
  });
});
