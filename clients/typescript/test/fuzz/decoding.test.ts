/**
 * What is decoded of a server, with what no server sends: for TRANSPARENT_LLM_FUZZ_SECONDS in all (5 by default), from a
 * seed that is printed with what fails; TRANSPARENT_LLM_FUZZ_SEED repeats it.
 */

import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { Assembler, StreamError } from "../../src/assembler.js";
import { sizeOf } from "../../src/dtypes.js";
import { TransparentLlmError } from "../../src/errors.js";
import { Expected } from "../../src/expected.js";
import { attnProduct, ffnProduct } from "../../src/factors.js";
import { ErrorInfoSchema, RetryInfoSchema, StatusSchema } from "../../src/gen/google/rpc/error_details_pb.js";
import { RunResponseSchema } from "../../src/gen/transparent_llm/v1/service_pb.js";
import { TensorChunkSchema, type TensorHeaderSchema } from "../../src/gen/transparent_llm/v1/tensor_pb.js";
import type { DtypeName } from "../../src/index.js";
import { READS } from "../../src/methods.js";
import { runOfResponse } from "../../src/run.js";
import { Scope } from "../../src/scope.js";
import { errorOfStatus } from "../../src/status.js";
import { Tensor } from "../../src/tensor.js";
import { Dice } from "../support/dice.js";

const SEED = Number(process.env["TRANSPARENT_LLM_FUZZ_SEED"] ?? Date.now() % 2 ** 32);
const MS = Number(process.env["TRANSPARENT_LLM_FUZZ_SECONDS"] ?? 5) * 250;
const MOST_BYTES = 2 ** 16;
const DTYPES: DtypeName[] = ["BOOL", "U8", "I8", "I16", "I32", "I64", "F16", "BF16", "F32", "F64"];
const NAMES = [...Object.values(READS).map(({ header }) => header), "decomposed_attn.pattern", "x", "\x1b[2J", ""];
const AXES = ["batch", "pos", "d_model", "d_vocab", "target", "source", "head", "x"];
const NUMBERS = [0n, 1n, 2n, 3n, 6n, 24n, 2n ** 31n, 2n ** 32n, 2n ** 47n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n];

/** Do something again and again, with dice of which the seed is told if it fails. */
async function repeatedly(once: (dice: Dice) => void | Promise<void>): Promise<void> {
  const end = performance.now() + MS;
  for (let seed = SEED; performance.now() < end; seed++) {
    try {
      await once(new Dice(seed));
    } catch (error) {
      throw new Error(`with TRANSPARENT_LLM_FUZZ_SEED=${seed}: ${error instanceof Error ? error.stack : error}`);
    }
  }
}

function header(dice: Dice): MessageInitShape<typeof TensorHeaderSchema> {
  const shape = dice.list(9, () => dice.oneOf(NUMBERS));
  const dtype = dice.below(12);
  const honest = shape.reduce(
    (product, length) => product * length,
    BigInt([0, 1, 1, 1, 2, 4, 8, 2, 2, 4, 8][dtype] ?? 1),
  );
  return {
    name: dice.oneOf(NAMES),
    dtype,
    shape,
    dims: dice.chance() ? shape.map(() => dice.oneOf(AXES)) : dice.list(9, () => dice.oneOf(AXES)),
    totalBytes: honest < 2n ** 64n && dice.chance() ? honest : dice.oneOf(NUMBERS),
    etag: dice.oneOf(["", "e", "f"]),
  };
}

function chunk(dice: Dice): Uint8Array {
  const message = create(TensorChunkSchema, {
    ...(dice.chance() && { header: header(dice) }),
    offset: dice.oneOf(NUMBERS),
    data: dice.bytes(dice.oneOf([0, 1, 6, 24])),
  });
  return dice.damaged(toBinary(TensorChunkSchema, message));
}

test("streams", () =>
  repeatedly((dice) => {
    const expected = new Expected(Object.values(READS).map((method) => ({ method, options: {}, isFactored: true })));
    const assembler = new Assembler(MOST_BYTES, 4, dice.chance() ? (head) => expected.check(head) : undefined);
    try {
      for (let messages = dice.below(6); messages >= 0; messages--) {
        if (dice.below(5) === 0) {
          assembler.resume();
        }
        let message: ReturnType<typeof fromBinary<typeof TensorChunkSchema>>;
        try {
          message = fromBinary(TensorChunkSchema, chunk(dice));
        } catch {
          return; // as Connect says of it
        }
        assembler.add(message);
        expect(assembler.received).toBeLessThanOrEqual(assembler.totalBytes);
      }
      for (const { tensor } of assembler.tensors()) {
        expect(tensor.bytes.byteLength).toBeLessThanOrEqual(MOST_BYTES);
      }
    } catch (error) {
      requireOurs(error);
    }
  }));

test("statuses", () =>
  repeatedly((dice) => {
    const text = (): string =>
      dice.oneOf(["", "BUSY", "model", "transparent-llm", "\x1b[2J\u202e".repeat(dice.below(5000))]);
    const info = create(ErrorInfoSchema, {
      domain: dice.oneOf(["transparent-llm", "x"]),
      reason: dice.oneOf(["BUSY", "TOO_LARGE", "\x1b"]),
      metadata: Object.fromEntries(dice.list(40, () => [`${dice.below(100)}\x07`, "v".repeat(dice.below(2000))])),
    });
    const retry = create(RetryInfoSchema, {
      retryDelay: { seconds: BigInt.asIntN(64, dice.oneOf(NUMBERS)), nanos: dice.oneOf([0, 1, -1, 2 ** 31 - 1]) },
    });
    const status = {
      message: text(),
      details: [anyPack(ErrorInfoSchema, info), anyPack(RetryInfoSchema, retry)],
    };
    const details = dice.damaged(toBinary(StatusSchema, create(StatusSchema, status)));
    const error = errorOfStatus({ code: dice.below(20), message: text(), details }, "here");
    const words = `${error.message}${error.reason}${Object.entries(error.metadata).join()}`;
    expect(words.replace(/[\n\t]/g, "")).not.toMatch(/[\p{Cc}\p{Bidi_Control}]/u);
    expect(words.length).toBeLessThan(2 ** 16);
    expect(error.retryAfterS ?? 0).toBeGreaterThanOrEqual(0);
    expect(error.retryAfterS ?? 0).toBeLessThanOrEqual(86_400);
  }));

test("answers to Run", () =>
  repeatedly((dice) => {
    const answer = create(RunResponseSchema, {
      runId: dice.oneOf(["", "r"]),
      batchSize: dice.oneOf([0, 2, 2, 2 ** 31, 2 ** 32 - 1]),
      nPos: dice.oneOf([0, 1, 2, 2 ** 31, 2 ** 32 - 1]),
      tokenIds: dice.list(5, () => dice.below(10)),
      mask: dice.list(5, () => true),
      modelDigest: dice.oneOf(["", "0".repeat(64), "../x"]),
    });
    try {
      const received = fromBinary(RunResponseSchema, dice.damaged(toBinary(RunResponseSchema, answer)));
      const run = runOfResponse({ input: { sentences: ["a", "b"] }, edits: [], sources: new Map() }, "key", received);
      expect(run.tokens.length).toBe(2 * (run.tokens.shape[1] as number));
      expect(run.modelDigest).toMatch(/^[0-9a-f]{64}$/);
    } catch (error) {
      if (error instanceof TransparentLlmError || (error as Error).name === "AssertionError") {
        requireOurs(error);
      } // else the message cannot be read, as Connect says of it
    }
  }));

function tensor(dice: Dice): Tensor {
  const [dtype, shape] = [dice.oneOf(DTYPES), dice.list(5, () => dice.below(6))];
  const bytes = dice.bytes(shape.reduce((product, length) => product * length, sizeOf(dtype)));
  if (dtype === "I64") {
    bytes.forEach((_, i) => {
      bytes[i] = i % 8 === 0 ? dice.below(8) : 0;
    });
  }
  return new Tensor({ dtype, shape, bytes });
}

test("factors", () =>
  repeatedly(async (dice) => {
    const [first, second, gain, spans] = [tensor(dice), tensor(dice), tensor(dice), tensor(dice)];
    const more = { ...(dice.chance() && { gain }), ...(dice.chance() && { spans }) };
    const attn = new Map(Object.entries({ pattern: first, value_out: second, ...more }));
    const ffn = new Map(Object.entries({ activations: first, ...more }));
    for (const multiplied of [
      attnProduct(attn, MOST_BYTES, new Scope(60_000)),
      ffnProduct(ffn, second, MOST_BYTES, new Scope(60_000)),
    ]) {
      await multiplied.then(
        (product) => expect(product.bytes.byteLength).toBeLessThanOrEqual(MOST_BYTES),
        (error) => requireOurs(error),
      );
    }
  }));

function requireOurs(error: unknown): void {
  if (!(error instanceof TransparentLlmError) && !(error instanceof StreamError)) {
    throw error;
  }
}
