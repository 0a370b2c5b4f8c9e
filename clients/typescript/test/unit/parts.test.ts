/** Values of several tensors, as hand-made streams bring them. */

import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { Assembler } from "../../src/assembler.js";
import { type DtypeName, sizeOf, wireOfDtype } from "../../src/dtypes.js";
import { InternalError, InvalidRequestError, TooLargeError } from "../../src/errors.js";
import { Expected } from "../../src/expected.js";
import { type TensorChunk, TensorChunkSchema } from "../../src/gen/transparent_llm/v1/tensor_pb.js";
import { type Method, type Part, READS, valueAxes } from "../../src/methods.js";
import type { ReadOptions } from "../../src/options.js";
import { type Arrived, grouped, requireOneTensor } from "../../src/reads.js";
import { requireAxes } from "../../src/slices.js";

const AXES = ["batch", "pos", "k"];

/** A method of several tensors, as one of tomorrow may be. */
const LARGEST: Method = {
  ...READS.logits,
  header: "largest",
  dims: [],
  parts: new Map<string, Part>([
    ["values", { dims: AXES }],
    ["ids", { dims: AXES, dtype: "I64" }],
    ["rest", { dims: ["batch"], dtype: "F32", isOptional: true, isSparse: true }],
  ]),
};

function chunk(name: string, dtype: DtypeName, shape: number[], fill = 0, dims = AXES): TensorChunk {
  const size = shape.reduce((product, length) => product * length, sizeOf(dtype));
  return create(TensorChunkSchema, {
    header: {
      name,
      dtype: wireOfDtype(dtype),
      shape: shape.map(BigInt),
      dims: dims.slice(0, shape.length),
      totalBytes: BigInt(size),
      etag: "x",
    },
    data: new Uint8Array(size).fill(fill),
  });
}

const VALUES = chunk("largest.values", "F32", [1, 2, 3], 1); // 24 bytes
const IDS = chunk("largest.ids", "I64", [1, 2, 3], 2); // 48 bytes
const LOGITS = chunk("logits", "F32", [1, 2, 3], 0, ["batch", "pos", "d_vocab"]);
const BREAK = undefined;

function received(
  wanted: Method[],
  stream: readonly (TensorChunk | undefined)[],
  maxBytes?: number,
  options: ReadOptions = {},
): Arrived[] {
  const lengths = new Map([
    ["batch", 1],
    ["pos", 2],
  ]);
  const tokens = { shape: [lengths.get("batch"), lengths.get("pos")] };
  const expected = new Expected(wanted.map((method) => ({ method, options, run: { tokens } as never })));
  const assembler = new Assembler(
    maxBytes,
    expected.most,
    (header) => expected.check(header),
    (before, name) => expected.continues(before, name),
  );
  for (const message of stream) {
    if (message === BREAK) {
      assembler.resume();
    } else {
      assembler.add(message);
    }
  }
  return grouped(wanted, assembler.tensors());
}

test.each([
  ["whole", [VALUES, IDS]],
  ["broken between them", [VALUES, BREAK, IDS]],
  ["with an optional part", [VALUES, IDS, chunk("largest.rest", "F32", [1])]],
  ["with less of that", [VALUES, IDS, chunk("largest.rest", "F32", [0])]],
])("several tensors are one value: %s", (_, stream) => {
  const [value] = received([LARGEST], stream);
  expect([...(value as Arrived).keys()]).toEqual(["values", "ids", "rest"].slice(0, stream.filter(Boolean).length));
  expect(value?.get("values")?.dtype).toBe("F32");
  expect(value?.get("ids")?.bytes[0]).toBe(2);
});

test("values of one tensor and of several come in one stream", () => {
  const values = received([LARGEST, READS.logits, LARGEST], [VALUES, IDS, LOGITS, VALUES, IDS]);
  expect(values.map((value) => [...value.keys()])).toEqual([["values", "ids"], [""], ["values", "ids"]]);
});

test.each([
  ["one missing", [VALUES]],
  ["another order", [IDS, VALUES]],
  ["one twice", [VALUES, VALUES, IDS]],
  ["the last twice", [VALUES, IDS, IDS]],
  ["a whole value", [chunk("largest", "F32", [1, 2, 3])]],
  ["an unknown part", [VALUES, IDS, chunk("largest.more", "F32", [1])]],
  ["an unnamed part", [VALUES, IDS, chunk("largest.", "F32", [1])]],
  ["another type", [VALUES, chunk("largest.ids", "I32", [1, 2, 3])]],
  ["no floating type", [chunk("largest.values", "I32", [1, 2, 3]), IDS]],
  ["another length", [chunk("largest.values", "F32", [1, 1, 3]), IDS]],
  ["more than there is", [VALUES, IDS, chunk("largest.rest", "F32", [2])]],
  ["a part of another value", [VALUES, chunk("logits.ids", "I64", [1, 2, 3])]],
])("parts that are not those of the value are refused: %s", (_, stream) => {
  expect(() => received([LARGEST], stream)).toThrow(InternalError);
});

test.each([[[VALUES, IDS]], [[VALUES, BREAK, IDS]]])("the size of a value is that of its parts", (stream) => {
  expect(received([LARGEST], stream, 72)).toHaveLength(1);
  try {
    received([LARGEST], stream, 71);
    expect.unreachable();
  } catch (error) {
    expect(error).toBeInstanceOf(TooLargeError);
    expect((error as TooLargeError).metadata).toEqual({ needed: "72", allowed: "71" });
  }
});

test("two values of several tensors each have room of their own", () => {
  expect(received([LARGEST, LARGEST], [VALUES, IDS, VALUES, IDS], 72)).toHaveLength(2);
});

test("parts are cut and cast as asked, but for those with a type of their own", () => {
  const options: ReadOptions = { slices: { pos: { start: -1 } }, dtype: "BF16" };
  const stream = [chunk("largest.values", "BF16", [1, 1, 3]), chunk("largest.ids", "I64", [1, 1, 3])];
  expect(received([LARGEST], stream, undefined, options)).toHaveLength(1);
  expect(() => received([LARGEST], [VALUES, IDS], undefined, options)).toThrow(InternalError);
  expect(valueAxes(LARGEST)).toEqual(AXES);
  expect(() => requireAxes("largest", valueAxes(LARGEST), { d_model: {} })).toThrow(InvalidRequestError);
});

test("fetch takes reads of one tensor", () => {
  const reads = [{ name: "logits", indices: [] }] as const;
  expect(() => requireOneTensor(reads)).not.toThrow();
  const { logits } = READS;
  Object.assign(READS, { logits: LARGEST });
  try {
    expect(() => requireOneTensor(reads)).toThrow("logits is several: values, ids, rest; fetchParts reads them");
  } finally {
    Object.assign(READS, { logits });
  }
});
