import { toJson } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { InterventionSchema } from "../../src/gen/transparent_llm/v1/interventions_pb.js";
import { checkedEdits } from "../../src/interventions/edit.js";
import { effectsOf } from "../../src/interventions/effect.js";
import {
  add,
  attnOut,
  clamp,
  type Edit,
  EVERYWHERE,
  ffnOut,
  head,
  literal,
  mean,
  neuronOutput,
  neurons,
  noise,
  patch,
  pattern,
  project,
  residualAfterAttn,
  residualIn,
  residualOut,
  runValue,
  scale,
  setTo,
  swap,
  unembedding,
  type Vector,
  zero,
} from "../../src/interventions.js";
import { Tensor } from "../../src/tensor.js";

const SOURCE = { name: "a client" } as never;
const LAST = { positions: "last", rows: "all" } as const;
const HERE = { positions: [0, -1], rows: [1] } as const;

function sent(edit: Edit): unknown {
  return toJson(
    InterventionSchema,
    edit.toWire((source) => (source === SOURCE ? "r1" : "")),
  );
}

const where = { allPositions: true, allRows: true };
const here = { chosenPositions: { indices: [0, -1] }, chosenRows: { indices: [1] } };
const last = { lastPosition: true, allRows: true };
const u = { unembedding: 5 };

test.each<[Edit, object]>([
  [zero(head(1, 2), EVERYWHERE), { ...where, site: { kind: "SITE_KIND_HEAD", layer: 1, head: 2 }, scale: {} }],
  [
    scale(residualAfterAttn(-1), -0.5, HERE),
    { ...here, site: { kind: "SITE_KIND_RESIDUAL_AFTER_ATTN", layer: -1 }, scale: { factor: -0.5 } },
  ],
  [
    add(residualIn(0), unembedding(5), LAST),
    { ...last, site: { kind: "SITE_KIND_RESIDUAL_IN" }, add: { vector: u, factor: 1 } },
  ],
  [
    add(residualOut(0), unembedding(5).minus(neuronOutput(1, 7)), { ...LAST, factor: 2, relative: true }),
    {
      ...last,
      site: { kind: "SITE_KIND_RESIDUAL_OUT" },
      add: {
        vector: { difference: { minuend: u, subtrahend: { neuronOutput: { layer: 1, neuron: 7 } } } },
        factor: 2,
        relative: true,
      },
    },
  ],
  [
    setTo(attnOut(1), runValue(ffnOut(2), SOURCE, { row: 0, pos: -1 }), LAST),
    {
      ...last,
      site: { kind: "SITE_KIND_ATTN_OUT", layer: 1 },
      set: { vector: { value: { runId: "r1", site: { kind: "SITE_KIND_FFN_OUT", layer: 2 }, pos: -1 } } },
    },
  ],
  [mean(ffnOut(1), SOURCE, LAST), { ...last, site: { kind: "SITE_KIND_FFN_OUT", layer: 1 }, mean: { runId: "r1" } }],
  [
    patch(pattern(0, 1), SOURCE, { ...HERE, sourcePositions: [3, 3], sourceRows: [0] }),
    {
      ...here,
      site: { kind: "SITE_KIND_PATTERN", head: 1 },
      patch: { runId: "r1", sourceRows: { indices: [0] }, sourcePositions: { indices: [3, 3] } },
    },
  ],
  [
    project(neurons(0, [3, 5]), unembedding(5), LAST),
    { ...last, site: { kind: "SITE_KIND_NEURONS", neurons: [3, 5] }, project: { vector: u } },
  ],
  [
    clamp(neurons(0, "all"), unembedding(5), { ...LAST, least: -1, most: Number.POSITIVE_INFINITY }),
    { ...last, site: { kind: "SITE_KIND_NEURONS" }, clamp: { vector: u, least: -1, most: "Infinity" } },
  ],
  [
    swap(residualIn(0), unembedding(5), unembedding(6), LAST),
    { ...last, site: { kind: "SITE_KIND_RESIDUAL_IN" }, swap: { origin: u, target: { unembedding: 6 } } },
  ],
  [
    noise(residualIn(0), { ...LAST, sd: 0.5, seed: -(2n ** 63n) }),
    { ...last, site: { kind: "SITE_KIND_RESIDUAL_IN" }, noise: { sd: 0.5, seed: "-9223372036854775808" } },
  ],
])("edit %# is sent as it is meant", (edit, wanted) => {
  expect(sent(edit)).toEqual(wanted);
});

test("numbers are sent in their own type, as they were when they were given", () => {
  const numbers = Tensor.ofFloats([1, 2]);
  const edit = setTo(residualIn(0), numbers, EVERYWHERE);
  numbers.bytes.fill(0);
  const { operation } = edit.toWire(() => "");
  expect(operation.value).toMatchObject({ vector: { source: { value: { shape: [2n], dtype: 9 } } } });
  expect(JSON.stringify(sent(edit))).toContain(Buffer.from(new Float32Array([1, 2]).buffer).toString("base64"));
});

test("sources are those of all vectors", () => {
  const value = runValue(head(0, 1), SOURCE, { row: 0, pos: 0 });
  expect(swap(head(0, 1), unembedding(1), unembedding(2).minus(value), LAST).sources).toEqual([SOURCE]);
});

const tensor = (dtype: "I64" | "F64", shape: number[]) =>
  new Tensor({ dtype, shape, bytes: new Uint8Array(8 * shape.reduce((a, b) => a * b, 1)) });

test.each<[string, () => unknown, string]>([
  ["a layer that is no integer", () => residualIn(0.5), "layer must be an integer"],
  ["a layer beyond any", () => residualIn(2 ** 31), "layer 2147483648 is out of range"],
  ["a head that is missing", () => head(0, undefined as never), "head must be an integer"],
  ["no neurons", () => neurons(0, []), "neurons must be"],
  ["neurons that are not said", () => neurons(0, undefined as never), 'neurons must be "all"'],
  ["no site", () => zero("head" as never, EVERYWHERE), "an edit is at a site such as residualOut(3)"],
  ["positions that are not said", () => zero(head(0, 1), { rows: "all" } as never), "positions must be"],
  ["rows that are not said", () => zero(head(0, 1), { positions: "all" } as never), "rows must be"],
  ["no elements at all", () => zero(head(0, 1), undefined as never), "positions and rows"],
  ["rows by another word", () => zero(head(0, 1), { positions: "all", rows: "last" as never }), "rows must be"],
  ["empty positions", () => zero(head(0, 1), { positions: [], rows: "all" }), "positions is empty"],
  ["a row twice", () => zero(head(0, 1), { positions: "all", rows: [1, 1] }), "rows names one twice"],
  ["a factor that is not finite", () => scale(head(0, 1), Number.NaN, EVERYWHERE), "factor must be a finite number"],
  ["a negative sd", () => noise(head(0, 1), { ...LAST, sd: -1, seed: 1 }), "sd is -1"],
  ["a seed beyond 2 ** 53", () => noise(head(0, 1), { ...LAST, sd: 1, seed: 2 ** 60 }), "seed must be an integer"],
  ["a seed beyond 64 bits", () => noise(head(0, 1), { ...LAST, sd: 1, seed: 2n ** 63n }), "seed must be an integer"],
  ["turned bounds", () => clamp(head(0, 1), [1], { ...LAST, least: 2, most: 1 }), "clamp between 2 and 1"],
  ["bounds that are none", () => clamp(head(0, 1), [1], { ...LAST, least: Number.NaN, most: 1 }), "clamp between NaN"],
  [
    "fewer places than are changed",
    () => patch(head(0, 1), SOURCE, { ...HERE, sourceRows: [1, 2] }),
    "2 entries for 1",
  ],
  ["places for all", () => patch(head(0, 1), SOURCE, { ...LAST, sourceRows: [1] }), "1 entries for all"],
  ["a vector of integers", () => literal(tensor("I64", [1])), "a vector is floating numbers [d]"],
  ["a vector of three axes", () => literal(tensor("F64", [1, 1, 1])), "got F64 of shape [1, 1, 1]"],
  ["no numbers", () => literal([]), "of shape [0]"],
  ["a vector that is a word", () => literal("abc" as never), "a vector is numbers in an array"],
  ["a vector of NaN", () => literal([1, Number.NaN]), "a vector has elements that are not finite"],
])("%s: refused", (_, make, words) => {
  expect(make).toThrow(
    expect.objectContaining({ name: "InvalidRequestError", message: expect.stringContaining(words) }),
  );
});

test("differences within differences have an end", () => {
  let vector: Vector = unembedding(1);
  for (let i = 0; i < 8; i++) {
    vector = unembedding(2).minus(vector);
  }
  expect(() => vector.minus(unembedding(3))).toThrow(
    "a vector of 9 differences within each other, at most 8 are taken",
  );
});

test("edits are an array of edits, of 512 at most", () => {
  const edit = zero(head(0, 1), EVERYWHERE);
  expect(checkedEdits([edit])).toEqual([edit]);
  for (const wrong of [edit, "zero", [{ site: "head" }], null]) {
    expect(() => checkedEdits(wrong)).toThrow("edits is an array of edits");
  }
  expect(() => checkedEdits(new Array(513).fill(edit))).toThrow(
    expect.objectContaining({ reason: "TOO_LONG", metadata: { needed: "513", allowed: "512" } }),
  );
});

test("effects of more or fewer edits than were sent are no answer", () => {
  expect(() => effectsOf([], 1)).toThrow("the server sent effects of 0 edits for 1 that were sent");
});
