/**
 * Lost runs, lost connections, cancelled calls and time that is over, with the real server behind a proxy that interrupts.
 */

import { afterEach, beforeEach, describe, expect, inject, test } from "vitest";
import type { Progress, Tensor } from "../../src/index.js";
import { connect, type RemoteTransparentLlm } from "../../src/node.js";
import { FaultyProxy } from "../support/faulty_proxy.js";
import { expectSame } from "../support/same_value.js";

/** A run whose decomposition of attention takes 20 MB. */
const ROW = Array.from({ length: 100 }, (_, i) => i + 1);

let proxy: FaultyProxy;
let llm: RemoteTransparentLlm;

beforeEach(async () => {
  proxy = await FaultyProxy.before(inject("target"));
  llm = connect(proxy.address, { timeoutMs: 30_000, cacheBytes: 0 });
  await llm.runTokens([ROW]);
});

afterEach(async () => {
  llm.close();
  await proxy.close();
});

describe("a lost run", () => {
  test("is made again, by all ways to read", async () => {
    const wanted = await llm.residualOut(1);
    await llm.release();
    expect(await llm.residualOut(1)).toEqual(wanted);
    await llm.release();
    expect(await llm.fetch([["residualOut", 1]])).toEqual([wanted]);
    await llm.release();
    expect((await llm.decomposedFfnOut(0, 0, 0)).dtype).toBe("F32");
  });

  test("by many at once", async () => {
    await llm.release();
    const values = await Promise.all([0, 1, 2, 3].map((layer) => llm.residualIn(layer)));
    expect(new Set(values.map(({ shape }) => shape.join())).size).toBe(1);
  });

  test("unless that is not wanted", async () => {
    const plain = connect(inject("target"), { rerun: false, cacheBytes: 0 });
    await plain.run(["Hello"]);
    await plain.release();
    await expect(plain.logits()).rejects.toMatchObject({ name: "NotFoundError", reason: "RUN_NOT_FOUND" });
    plain.close();
  });
});

describe("a lost connection", () => {
  test("in the middle of a tensor, again and again", async () => {
    const wanted = await llm.decomposedAttn(0, 1, { slices: { d_model: { start: 0 } } });
    const seen: Progress[] = [];
    proxy.interruptAfter(3_000_000, 1_000_000, 2_000_000);
    const value = await llm.decomposedAttn(0, 1, {
      slices: { d_model: { start: 0 } },
      onProgress: (each) => seen.push(each),
    });
    expect(proxy.interruptions).toBe(3);
    expectSame(value, wanted);
    const received = seen.map(({ receivedBytes }) => receivedBytes);
    expect(received).toEqual([...received].sort((a, b) => a - b)); // nothing was thrown away
  });

  test("between and within the tensors of a fetch", async () => {
    const reads = [["logits"], ["residualIn", 0], ["decomposedAttn", 0, 1], ["logits"]] as const;
    const wanted = await llm.fetch(reads);
    for (const first of [100, 10_000, 400_000, 700_000, 1_000_000]) {
      const before = proxy.interruptions;
      proxy.interruptAfter(first, 50_000);
      const values = await llm.fetch(reads);
      for (const [i, value] of values.entries()) {
        expectSame(value, wanted[i] as Tensor);
      }
      expect(proxy.interruptions - before).toBe(2);
    }
  });

  test("before a small answer", async () => {
    proxy.interruptAfter(1, 1, 1);
    expect((await llm.modelInfo()).name).toBe("demo");
    expect(proxy.interruptions).toBe(3);
  });

  test("to a server that never answered is not waited for", async () => {
    const nobody = connect("127.0.0.1:1");
    const wanted = {
      name: "UnavailableError",
      reason: "UNAVAILABLE",
      metadata: { status: "UNAVAILABLE", target: "127.0.0.1:1" },
    };
    await expect(nobody.run(["Hello"])).rejects.toMatchObject(wanted);
    expect(await nobody.isServing()).toBe(false);
    nobody.close();
  });

  test("that does not come back within the call's time", async () => {
    await proxy.close();
    let message = "";
    for (let timeoutMs = 1000; !message.includes("was lost") && timeoutMs < 30_000; timeoutMs *= 2) {
      const error = await llm.logits({ timeoutMs }).catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ name: "DeadlineError" }); // of no time to see the loss, perhaps
      message = (error as Error).message;
    }
    expect(message).toMatch(/was lost.*did not come back/);
    proxy = await FaultyProxy.before(inject("target"));
  });
});

test("megabytes are on their way before the server must hear that they came", async () => {
  await llm.runTokens([ROW.slice(0, 60)]);
  const slices = { d_model: { start: 0 } };
  const value = await llm.decomposedAttn(0, 1, { slices, timeoutMs: 30_000, onProgress: () => proxy.deafen() });
  expect(value.bytes.length).toBe(60 * 60 * 4 * 128 * 4);
});

describe("the time of a call", () => {
  test("that is over", async () => {
    proxy.hold();
    await expect(llm.logits({ timeoutMs: 200 })).rejects.toMatchObject({ name: "DeadlineError" });
    await expect(llm.modelInfo({ timeoutMs: 200 })).rejects.toMatchObject({ name: "DeadlineError" });
  });
});

describe("a cancelled call", () => {
  test("ends at once, and the client goes on", async () => {
    proxy.hold();
    const canceller = new AbortController();
    const calls = [llm.logits({ signal: canceller.signal }), llm.modelInfo({ signal: canceller.signal })];
    const why = new Error("another sentence was typed");
    canceller.abort(why);
    for (const call of calls) {
      const error = await call.catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ name: "CancelledError", reason: "CANCELLED" });
      expect((error as Error).cause).toBe(why);
    }
    const fresh = connect(inject("target"));
    await fresh.runTokens([ROW]);
    expect((await fresh.logits()).length).toBeGreaterThan(0);
    fresh.close();
  });

  test("in the middle of a transfer", async () => {
    const canceller = new AbortController();
    const read = llm.decomposedAttn(0, 1, {
      slices: { d_model: { start: 0 } },
      signal: canceller.signal,
      onProgress: () => canceller.abort(),
    });
    await expect(read).rejects.toMatchObject({ name: "CancelledError" });
    expect((await llm.logits()).length).toBeGreaterThan(0);
  });

  test("before it began", async () => {
    const signal = AbortSignal.abort("not wanted");
    await expect(llm.logits({ signal })).rejects.toMatchObject({ name: "CancelledError", cause: "not wanted" });
  });

  test("by closing the client", async () => {
    proxy.hold();
    const read = llm.logits();
    llm.close();
    const error = await read.catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ name: "CancelledError" });
    expect(error).not.toHaveProperty("cause"); // no signal had a reason
  });

  test("by an error of the caller's own callback, which the caller gets", async () => {
    const read = llm.logits({
      onProgress: () => {
        throw new RangeError("mine");
      },
    });
    await expect(read).rejects.toThrow(new RangeError("mine"));
  });
});

describe("a server that is gone", () => {
  test("is waited for as long as reconnectS says, by all calls of a client together", async () => {
    const brief = connect(proxy.address, { timeoutMs: 30_000, cacheBytes: 0, reconnectS: 0.5 });
    await brief.runTokens([[1, 2]]);
    await proxy.close();
    const started = performance.now();
    const wanted = { name: "UnavailableError", reason: "UNAVAILABLE" };
    await expect(brief.logits()).rejects.toMatchObject(wanted);
    const waitedMs = performance.now() - started;
    await expect(brief.logits()).rejects.toThrow(/was lost and did not come back within 0.5 s \(reconnectS\)/);
    const againMs = performance.now() - started - waitedMs;
    brief.close();
    expect(waitedMs).toBeGreaterThan(400);
    expect(againMs).toBeLessThan(waitedMs / 2);
  });

  test("and not at all if that is 0", async () => {
    const impatient = connect(proxy.address, { timeoutMs: 30_000, cacheBytes: 0, reconnectS: 0 });
    await impatient.runTokens([[1, 2]]);
    const copy = impatient.copy();
    await proxy.close();
    await expect(copy.logits()).rejects.toMatchObject({ name: "UnavailableError" });
    impatient.close();
  });

  test.each([-1, Number.NaN, Number.POSITIVE_INFINITY])("for %d seconds is refused", (reconnectS) => {
    expect(() => connect(proxy.address, { reconnectS })).toThrow("reconnectS is");
  });
});
