import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { StreamError } from "../../src/assembler.js";
import { SweepResponseSchema } from "../../src/gen/transparent_llm/v1/sweeps_pb.js";
import { Sweep } from "../../src/interventions/sweep.js";
import { EVERYWHERE, head, kl, logit, loss, projection, residualIn, zero } from "../../src/interventions.js";

const templates = [zero(head(0, 1), EVERYWHERE)];
const metrics = [logit(5, { pos: -1 }), loss()];
const PLAN = { templates, cells: [{ layer: 0 }, { layer: 1 }, { layer: 2 }], metrics };

function answer(baselines: number[], cells: number[] = [], values: number[] = []) {
  return create(SweepResponseSchema, { baselines, cells, values });
}

function begun(plan = PLAN) {
  const sweep = new Sweep(plan);
  sweep.request("r", 1, () => "");
  return sweep;
}

test("what came before a loss is kept, and what is left is asked for", () => {
  const sweep = begun();
  expect(sweep.take(answer([1, 2], [1], [20, 21]))).toBe(true);
  expect(() => sweep.result()).toThrow("values of 1 of 3 cells");
  expect(sweep.request("r", 1, () => "").cells.map(({ layer }) => layer)).toEqual([0, 2]);
  sweep.take(answer([1, 2], [1], [30, 31]));
  sweep.take(answer([], [0], [10, 11]));
  const { baselines, values } = sweep.result();
  expect([baselines.shape, [...baselines.toFloat64()]]).toEqual([
    [2, 1],
    [1, 2],
  ]);
  expect([values.shape, values.dims, [...values.toFloat64()]]).toEqual([
    [3, 2, 1],
    ["cell", "metric", "row"],
    [10, 11, 20, 21, 30, 31],
  ]);
});

test.each([
  ["no baselines first", [answer([], [0], [1, 2])]],
  ["baselines twice", [answer([1, 2], [0], [1, 2]), answer([1, 2], [1], [1, 2])]],
  ["too few baselines", [answer([1], [0], [1, 2])]],
  ["values missing", [answer([1, 2], [0], [1])]],
  ["a cell twice", [answer([1, 2], [0, 0], [1, 2, 3, 4])]],
  ["a cell again", [answer([1, 2], [0], [1, 2]), answer([], [0], [1, 2])]],
  ["a cell that was not asked for", [answer([1, 2], [3], [1, 2])]],
])("%s: no answer", (_, messages) => {
  const sweep = begun();
  expect(() => messages.map((message) => sweep.take(message))).toThrow(StreamError);
});

test.each<[string, () => unknown, string]>([
  ["no cells", () => new Sweep({ ...PLAN, cells: [] }), "a sweep without cells"],
  ["no templates", () => new Sweep({ ...PLAN, templates: [] }), "a sweep without templates"],
  ["too many cells", () => new Sweep({ ...PLAN, cells: new Array(16_385).fill({}) }), "16385 cells, at most 16384"],
  ["too many metrics", () => new Sweep({ ...PLAN, metrics: new Array(17).fill(loss()) }), "17 metrics, at most 16"],
  ["too many edits", () => new Sweep({ ...PLAN, edits: new Array(512).fill(templates[0]) }), "513 edits"],
  ["other metrics", () => new Sweep({ ...PLAN, metrics: ["loss" as never] }), "metrics is an array of metrics"],
  ["a row twice", () => new Sweep({ ...PLAN, rows: [0, 0] }), "rows names one twice"],
  ["a layer that is none", () => new Sweep({ ...PLAN, cells: [{ layer: 0.5 }] }), "layer must be an integer"],
  ["no position", () => kl(undefined as never), "pos must be an integer"],
  ["no token", () => logit(undefined as never, { pos: 0 }), "token must be an integer"],
  ["no site", () => projection("x" as never, [1], { pos: 0 }), "an edit is at a site"],
  ["no direction", () => projection(residualIn(0), [], { pos: 0 }), "a vector is floating numbers"],
])("%s: refused", (_, make, words) => {
  expect(make).toThrow(words);
});
