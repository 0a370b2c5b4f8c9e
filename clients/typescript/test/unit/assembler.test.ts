import { create, fromBinary } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { Assembler, StreamError } from "../../src/assembler.js";
import { TooLargeError } from "../../src/errors.js";
import { Dtype, type TensorChunk, TensorChunkSchema } from "../../src/gen/transparent_llm/v1/tensor_pb.js";

interface Head {
  name?: string;
  dtype?: Dtype;
  shape?: bigint[];
  dims?: string[];
  totalBytes?: bigint;
  etag?: string;
}

/** A tensor of bytes. */
function head(size: number, parts: Head = {}): Head {
  return {
    name: "t",
    dtype: Dtype.U8,
    shape: [BigInt(size)],
    dims: ["pos"],
    totalBytes: BigInt(size),
    etag: "e",
    ...parts,
  };
}

function chunk(header: Head | undefined, offset = 0, ...data: number[]): TensorChunk {
  return create(TensorChunkSchema, { ...(header && { header }), offset: BigInt(offset), data: Uint8Array.from(data) });
}

function assembled(...chunks: TensorChunk[]): number[][] {
  const assembler = new Assembler();
  chunks.forEach((each) => {
    assembler.add(each);
  });
  return assembler.tensors().map(({ tensor }) => [...tensor.bytes]);
}

test("a message as literal bytes", () => {
  const header = [0x0a, 1, 0x74, 0x10, 9, 0x1a, 1, 2, 0x22, 3, 0x70, 0x6f, 0x73, 0x28, 8, 0x32, 1, 0x65];
  const data = [0, 0, 128, 63, 0, 0, 32, 193];
  const assembler = new Assembler();
  assembler.add(
    fromBinary(TensorChunkSchema, Uint8Array.from([0x0a, header.length, ...header, 0x1a, data.length, ...data])),
  );
  const [{ name, tensor } = expect.unreachable()] = assembler.tensors();
  expect([name, tensor.dtype, tensor.shape, tensor.dims, [...tensor.toFloat32()]]).toEqual([
    "t",
    "F32",
    [2],
    ["pos"],
    [1, -10],
  ]);
  expect(assembler.etag).toBe("e");
});

test("chunks that end within an element, and several tensors", () => {
  expect(
    assembled(chunk(head(3), 0, 1), chunk(undefined, 1, 2), chunk(undefined, 3 - 1, 3), chunk(head(1), 0, 9)),
  ).toEqual([[1, 2, 3], [9]]);
});

test("scalars and empty tensors", () => {
  const scalar = head(1, { shape: [], dims: [] });
  const empty = head(0, { shape: [0n, 2n ** 40n], dims: ["a", "b"] });
  expect(assembled(chunk(scalar, 0, 7), chunk(empty), chunk(empty))).toEqual([[7], [], []]);
});

describe("broken streams", () => {
  test.each<[string, TensorChunk[]]>([
    ["nothing came", []],
    ["no header", [chunk(undefined, 0, 1)]],
    ["a gap", [chunk(head(3), 0, 1), chunk(undefined, 2, 3)]],
    ["a byte twice", [chunk(head(3), 0, 1, 2), chunk(undefined, 1, 3)]],
    ["surplus", [chunk(head(1), 0, 1, 2)]],
    ["surplus of an empty one", [chunk(head(0)), chunk(undefined, 0, 1)]],
    ["an early end", [chunk(head(2), 0, 1)]],
    ["a new tensor before the end", [chunk(head(2), 0, 1), chunk(head(1), 0, 1)]],
    ["another etag within the stream", [chunk(head(1), 0, 1), chunk(head(1, { etag: "f" }), 0, 1)]],
    ["bytes that do not fit the shape", [chunk(head(2, { totalBytes: 3n }), 0, 1, 2)]],
    ["a shape that overflows to its bytes", [chunk(head(0, { shape: [2n ** 32n, 2n ** 32n], dims: ["a", "b"] }))]],
    ["an axis that no tensor has", [chunk(head(0, { shape: [0n, 2n ** 63n], dims: ["a", "b"] }))]],
    [
      "a shape that overflows before it is empty",
      [chunk(head(0, { shape: [2n ** 47n, 2n, 0n], dims: ["a", "b", "c"] }))],
    ],
    ["more axes than any value", [chunk(head(1, { shape: Array(9).fill(1n), dims: Array(9).fill("pos") }))]],
    ["a name of megabytes", [chunk(head(1, { name: "x".repeat(2 ** 22) }), 0, 1)]],
    ["an axis of megabytes", [chunk(head(1, { dims: ["x".repeat(2 ** 22)] }), 0, 1)]],
    ["an etag of megabytes", [chunk(head(1, { etag: "x".repeat(2 ** 22) }), 0, 1)]],
    ["an offset near 2 ** 64", [create(TensorChunkSchema, { header: head(3), offset: 2n ** 64n - 1n })]],
    ["fewer names than axes", [chunk(head(1, { dims: [] }), 0, 1)]],
    ["an unknown dtype", [chunk(head(1, { dtype: 99 as Dtype }), 0, 1)]],
    ["no dtype", [chunk(head(1, { dtype: Dtype.UNSPECIFIED }), 0, 1)]],
    ["more than any memory", [chunk(head(2 ** 52))]],
    ["shared memory", [create(TensorChunkSchema, { header: head(1), shared: { slot: 0, size: 1 } })]],
  ])("%s", (_, chunks) => {
    expect(() => assembled(...chunks)).toThrow(StreamError);
  });
});

test("a header with axes without number is refused at once", () => {
  const many = { shape: Array<bigint>(200_000).fill(2n ** 32n), dims: Array<string>(200_000).fill("pos") };
  expect(() => assembled(chunk(head(0, many)))).toThrow(/^the header names 200000 axes of 200000$/);
});

test("what is said of a liar is short, and nothing that a terminal obeys", () => {
  const long = "\x1b[2J".repeat(2 ** 20);
  const liars = [head(1, { name: long }), head(1, { dims: [long] }), head(2, { name: "\x1b[2J", dims: ["\x07"] })];
  for (const liar of liars) {
    let said = "";
    try {
      assembled(chunk(liar, 0, 1));
    } catch (error) {
      said = String(error);
    }
    expect(said).toMatch(/^StreamError: [\x20-\x7e\ufffd]{1,1000}$/);
  }
});

test("a tensor that nobody asked for is refused by its header", () => {
  const assembler = new Assembler(undefined, 1, () => {
    throw new Error("not asked for");
  });
  expect(() => assembler.add(chunk(head(1), 0, 1))).toThrow("not asked for");
});

test("headers without end are refused at the first that is too many", () => {
  const assembler = new Assembler(undefined, 2);
  assembler.add(chunk(head(0)));
  assembler.add(chunk(head(0)));
  expect(() => assembler.add(chunk(head(0)))).toThrow('"t" begins after 2 tensors');
});

test("a larger tensor than allowed is refused before its memory is taken", () => {
  expect(() => new Assembler(10).add(chunk(head(2 ** 47)))).toThrow(TooLargeError);
});

describe("taken up after an interruption", () => {
  function resumed(before: TensorChunk[], after: TensorChunk[]): Assembler {
    const assembler = new Assembler();
    for (const each of before) {
      assembler.add(each);
    }
    assembler.resume();
    for (const each of after) {
      assembler.add(each);
    }
    return assembler;
  }

  function tensorsOf(assembler: Assembler): number[][] {
    return assembler.tensors().map(({ tensor }) => [...tensor.bytes]);
  }

  test("with the same etag it goes on", () => {
    const assembler = resumed([chunk(head(3), 0, 1, 2)], [chunk(head(3), 2, 3)]);
    expect(tensorsOf(assembler)).toEqual([[1, 2, 3]]);
  });

  test("with another etag it begins again", () => {
    const other = head(2, { etag: "f" });
    const assembler = resumed([chunk(head(3), 0, 1, 2)], [chunk(other, 0, 8), chunk(undefined, 1, 9)]);
    expect(tensorsOf(assembler)).toEqual([[8, 9]]);
    expect(assembler.etag).toBe("f");
  });

  test("a tensor of which no byte came is sent again", () => {
    const assembler = new Assembler();
    assembler.add(chunk(head(1), 0, 1));
    assembler.add(chunk(head(2)));
    assembler.resume();
    expect([assembler.received, assembler.totalBytes]).toEqual([1, 1]);
    assembler.add(chunk(head(2), 0, 5, 6));
    expect(tensorsOf(assembler)).toEqual([[1], [5, 6]]);
  });

  test("after the last byte", () => {
    expect(tensorsOf(resumed([chunk(head(1), 0, 1)], [chunk(head(1), 1)]))).toEqual([[1]]);
  });

  test.each<[string, TensorChunk[]]>([
    ["another tensor with the same etag", [chunk(head(3, { name: "u" }), 2, 3)]],
    ["another shape", [chunk(head(3, { shape: [3n, 1n], dims: ["pos", "x"] }), 2, 3)]],
    ["other dims", [chunk(head(3, { dims: ["x"] }), 2, 3)]],
    ["another dtype", [chunk(head(3, { dtype: Dtype.I8 }), 2, 3)]],
    ["no header", [chunk(undefined, 2, 3)]],
    ["a gap", [chunk(head(4), 3, 4)]],
    ["the beginning with the same etag", [chunk(head(3), 0, 1, 2, 3)]],
    ["another etag and an offset", [chunk(head(3, { etag: "f" }), 2, 3)]],
  ])("%s is refused", (_, after) => {
    expect(() => resumed([chunk(head(3), 0, 1, 2)], after)).toThrow(StreamError);
  });
});
