/** Arguments that are no indices: what is asked for, and how long they say that axes are. */

import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { type DtypeName, wireOfDtype } from "../../src/dtypes.js";
import { InternalError, InvalidRequestError, TooLargeError } from "../../src/errors.js";
import { type Expectation, Expected, requireOwnSizes } from "../../src/expected.js";
import { TensorHeaderSchema } from "../../src/gen/transparent_llm/v1/tensor_pb.js";
import { READS } from "../../src/methods.js";
import { checkedRead, type Read } from "../../src/reads.js";
import { Tensor } from "../../src/tensor.js";

const RUN = { tokens: { shape: [1, 5] } } as never;

function expectationOf(read: Read): Expectation {
  const { name, sizes } = checkedRead(read);
  return { method: READS[name], options: {}, run: RUN, sizes: [sizes ?? new Map()] };
}

function header(name: string, dtype: DtypeName, dims: string[], ...shape: number[]) {
  return create(TensorHeaderSchema, { name, dtype: wireOfDtype(dtype), dims, shape: shape.map(BigInt) });
}

const TWO: Read = ["neuronContributions", 0, 1, 1, { k: 2 }];
const THREE: Read = ["neuronContributions", 0, 2, 1, { k: 3 }];

test.each([
  [[TWO], 2, true],
  [[TWO], 3, false],
  [[TWO], 1, false],
  [[TWO, THREE], 3, true],
  [[TWO, THREE], 4, false],
] as [Read[], number, boolean][])("a parameter says how long an axis is: %j, %i", (reads, length, isRight) => {
  const expected = new Expected(reads.map(expectationOf));
  const check = () => expected.check(header("neuron_contributions.ids", "I64", ["rank"], length));
  if (isRight) {
    expect(check).not.toThrow();
  } else {
    expect(check).toThrow(InternalError);
  }
});

test("a value is as long as its own read says, and not as another one", () => {
  const ids = new Tensor({ dtype: "I64", shape: [3], dims: ["rank"], bytes: new Uint8Array(24) });
  expect(() => requireOwnSizes(expectationOf(THREE), new Map([["ids", ids]]))).not.toThrow();
  expect(() => requireOwnSizes(expectationOf(TWO), new Map([["ids", ids]]))).toThrow("with 3 along rank, not 2");
});

test.each([
  [["layerLens", 0, 1, { k: 2 }], 5],
  [["layerLens", 0, 1], 5],
  [["layerLens", 0, 1, { positions: [-1, 0] }], 2],
] as [Read, number][])("an empty list of positions stands for all of them: %j", (read, length) => {
  const expected = new Expected([expectationOf(read)]);
  expect(() => expected.check(header("layer_lens.entropy", "F32", ["pos"], length))).not.toThrow();
  expect(() => expected.check(header("layer_lens.entropy", "F32", ["pos"], length + 1))).toThrow(InternalError);
});

test("what has a name becomes fields of the request", () => {
  const { indices, fields } = checkedRead([
    "layerLens",
    0,
    3,
    { minusLayer: 1, point: "after_attn", positions: [-1], k: 5, withKl: true },
  ]);
  expect(indices).toEqual([0, 3, 1]);
  expect(fields).toEqual({ point: 3, positions: [-1], k: 5, withKl: true });
  expect(checkedRead(["contributionEdges", 0, 1, { threshold: 0.5, norm: "l2" }]).fields).toEqual({
    threshold: 0.5,
    norm: 2,
  });
});

test.each([
  [{ point: "middle" }, InvalidRequestError, "one of"],
  [{ point: 2 }, InvalidRequestError, "one of"],
  [{ positions: 3 }, InvalidRequestError, "an array of integers"],
  [{ positions: new Array(4097).fill(0) }, TooLargeError, "4097 numbers"],
  [{ tokenIds: [2 ** 31] }, InvalidRequestError, "out of range"],
  [{ tokenIds: [0.5] }, InvalidRequestError, "an integer"],
  [{ k: -1 }, InvalidRequestError, "k -1 is out of range"],
  [{ k: 2 ** 32 }, InvalidRequestError, "out of range"],
  [{ k: "5" }, InvalidRequestError, "an integer"],
  [{ withKl: 1 }, InvalidRequestError, "true or false"],
  [{ threshold: 0.5 }, InvalidRequestError, "no parameter threshold"],
])("parameters that cannot be are refused: %j", (parameters, kind, words) => {
  const read = () => checkedRead(["layerLens", 0, 0, parameters]);
  expect(read).toThrow(kind);
  expect(read).toThrow(words);
});

test("a number that is none is refused", () => {
  expect(() => checkedRead(["contributionEdges", 0, 0, { threshold: Number.NaN }])).toThrow("a finite number");
});
