/** Gradients, beside small changes of a real run, and of servers that lie. */

import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import {
  add,
  EVERYWHERE,
  head,
  logit,
  loss,
  type Metric,
  neurons,
  pattern,
  residualIn,
  residualOut,
  type Site,
  scale,
} from "../../src/interventions.js";
import { connect, type GradientsPlan, type RemoteTransparentLlm, type Tensor } from "../../src/node.js";
import { chunkOf, DESCRIBED, startLiar } from "../support/liar.js";

const SENTENCES = ["My lord, I shall reply", "No"];
const METRIC = logit(5, { pos: -1 });

let llm: RemoteTransparentLlm;
let other: RemoteTransparentLlm;

beforeAll(async () => {
  llm = connect(inject("target"));
  await llm.run(SENTENCES);
  other = llm.copy();
  await other.run(["My king, I shall reply", "So"]);
});

afterAll(() => llm.close());

async function by(site: Site, plan: Partial<GradientsPlan> = {}): Promise<Tensor> {
  const { sites } = await llm.gradients({ metric: METRIC, sites: [site], ...plan });
  return sites[0] as Tensor;
}

/** The metric of the first row, with a vector added at the site at one position. */
async function changed(metric: Metric, site: Site, vector: Float32Array, factor: number, pos: number): Promise<number> {
  const template = add(site, vector, { factor, positions: [pos], rows: [0] });
  const { values } = await llm.sweep({ templates: [template], cells: [{}], metrics: [metric], rows: [0] });
  return values.at(0, 0, 0);
}

test.each<[string, Site]>([
  ["the stream", residualIn(1)],
  ["a head", head(1, 2)],
  ["neurons", neurons(2, "all")],
])("the gradient by %s is what small changes do", async (_, site) => {
  const pos = 2;
  const gradient = await by(site);
  const width = gradient.shape.at(-1) as number;
  const g = gradient.toFloat32().slice(pos * width, (pos + 1) * width);
  const length = Math.hypot(...g);
  const step = 0.02;
  const [more, less] = [
    await changed(METRIC, site, g, step / length, pos),
    await changed(METRIC, site, g, -step / length, pos),
  ];
  expect((more - less) / (2 * step) / length).toBeCloseTo(1, 1);
});

test("the forms are of the gradient and of what stands there", async () => {
  const site = residualOut(1);
  const { metric, sites } = await llm.gradients({
    metric: METRIC,
    sites: [
      site,
      { site, form: "times_activation" },
      { site, form: "norm" },
      { site, form: "times_difference", source: other },
    ],
  });
  const [g, timesActivation, norm, timesDifference] = sites as [Tensor, Tensor, Tensor, Tensor];
  const [a, b] = [await llm.residualOut(1), await other.residualOut(1)];
  expect([g.dims, norm.dims, metric.dims]).toEqual([["batch", "pos", "d_model"], ["batch", "pos"], ["batch"]]);
  const sum = (of: (i: number) => number): number =>
    Array.from({ length: g.shape[2] as number }, (_, i) => of(i)).reduce((all, x) => all + x, 0);
  expect(timesActivation.at(0, 3)).toBeCloseTo(
    sum((i) => g.at(0, 3, i) * a.at(0, 3, i)),
    3,
  );
  expect(norm.at(0, 3)).toBeCloseTo(Math.sqrt(sum((i) => g.at(0, 3, i) ** 2)), 4);
  expect(timesDifference.at(0, 3)).toBeCloseTo(
    sum((i) => g.at(0, 3, i) * (b.at(0, 3, i) - a.at(0, 3, i))),
    3,
  );
  const logits = await llm.logits();
  expect(metric.at(0)).toBeCloseTo(logits.at(0, llm.last()[0] as number, 5), 4);
});

test("rows are those that are asked for, with as many positions as the longest has", async () => {
  const site = residualIn(0);
  const all = await by(site);
  const [last] = llm.last().slice(-1) as [number];
  const second = await by(site, { rows: [-1] });
  expect(second.shape).toEqual([1, last + 1, all.shape[2]]);
  expect(second.at(0, 0, 3)).toBeCloseTo(all.at(1, 0, 3), 5);
});

test("patterns and all heads have axes of their own", async () => {
  const { sites } = await llm.gradients({ metric: loss(), sites: [pattern(0, "all"), head(0, "all"), pattern(0, 1)] });
  expect(sites.map(({ dims }) => dims)).toEqual([
    ["batch", "head", "query_pos", "key_pos"],
    ["batch", "pos", "head", "d_head"],
    ["batch", "query_pos", "key_pos"],
  ]);
});

test("with all parts frozen the last layer's stream has the direct effect alone", async () => {
  const frozen = await by(residualIn(0), { frozen: ["patterns", "norm_scales", "attention", "neurons"] });
  const direct = await by(residualOut(-1), { frozen: ["norm_scales"] });
  expect(frozen.at(0, -1, 3)).toBeCloseTo(direct.at(0, -1, 3), 5);
  expect((await by(residualIn(0))).at(0, -1, 3)).not.toBeCloseTo(direct.at(0, -1, 3), 5);
});

test.each<[string, () => "zero" | number | RemoteTransparentLlm]>([
  ["zeros", () => "zero"],
  ["a token", () => 7],
  ["another run", () => other],
])("integrated gradients from %s are the difference of the metrics", async (_, baseline) => {
  const { metric, sites, integrated } = await llm.gradients({
    metric: METRIC,
    path: { baseline: baseline(), steps: 20 },
  });
  const { baselineMetric, delta, values } = integrated ?? ({} as never);
  const width = (values.shape[1] as number) * (values.shape[2] as number);
  const sum = values
    .toFloat64()
    .subarray(0, width)
    .reduce((all, x) => all + x, 0);
  expect(sites).toEqual([]);
  expect(sum).toBeCloseTo(metric.at(0) - baselineMetric.at(0) + delta.at(0), 3);
});

test("what edits do, gradients of a run with them go through", async () => {
  const edits = [scale(residualOut(1), 3, { positions: [2], rows: [0] })];
  const [before, after] = [await by(residualIn(2), { edits }), await by(residualOut(0), { edits })];
  const plain = await by(residualOut(0));
  const step = 0.02;
  const g = after.toFloat32().slice(2 * (after.shape[2] as number), 3 * (after.shape[2] as number));
  const length = Math.hypot(...g);
  const changed = async (factor: number): Promise<number> => {
    const template = add(residualOut(0), g, { factor: factor / length, positions: [2], rows: [0] });
    const swept = await llm.sweep({ templates: [template], cells: [{}], metrics: [METRIC], rows: [0], edits });
    return swept.values.at(0, 0, 0);
  };
  expect(((await changed(step)) - (await changed(-step))) / (2 * step) / length).toBeCloseTo(1, 1);
  expect(after.at(0, 2, 3)).not.toBeCloseTo(plain.at(0, 2, 3), 4);
  expect(before.shape).toEqual(after.shape);
});

test("integrated gradients at another site have its axes", async () => {
  const path = { baseline: other, steps: 12, site: head(2, "all") };
  const { metric, integrated } = await llm.gradients({ metric: METRIC, path, rows: [0] });
  const { baselineMetric, delta, values } = integrated ?? ({} as never);
  const sum = values.toFloat64().reduce((all, x) => all + x, 0);
  expect(values.dims).toEqual(["batch", "pos", "head", "d_head"]);
  expect(sum).toBeCloseTo(metric.at(0) - baselineMetric.at(0) + delta.at(0), 3);
});

test("runs that were lost are run again, also those that it takes from", async () => {
  const [lost, source] = [llm.copy(), llm.copy()];
  await lost.runTokens([[1, 2, 3]]);
  await source.runTokens([[1, 2, 4]]);
  const plan: GradientsPlan = { metric: METRIC, sites: [{ site: residualIn(0), form: "times_difference", source }] };
  const { sites } = await lost.gradients(plan);
  await lost.release();
  await source.release();
  expect((await lost.gradients(plan)).sites[0]?.bytes).toEqual(sites[0]?.bytes);
});

test.each<[object, string]>([
  [{}, "gradients are of a metric"],
  [{ metric: METRIC }, "by an array of sites, along one path, or of edges"],
  [{ metric: METRIC, sites: [residualIn(0)], path: { baseline: "zero" } }, "give one of them"],
  [{ metric: METRIC, path: { baseline: "zero", site: neurons(0, "all") } }, "there is no path at neurons(0)"],
  [{ metric: METRIC, sites: [residualIn(0)], edits: [{}] }, "edits is an array of edits"],
  [{ metric: METRIC, sites: [{ site: residualIn(0), form: "length" }] }, 'form must be one of "gradient"'],
  [{ metric: METRIC, sites: [{ site: residualIn(0), form: "times_difference" }] }, '"times_difference" needs a source'],
  [{ metric: METRIC, sites: [{ site: residualIn(0), sourceRows: [0] }] }, '"gradient" has no source'],
  [{ metric: METRIC, sites: ["residualIn"] }, "site"],
  [{ metric: METRIC, sites: Array(4097).fill(residualIn(0)) }, "4097 sites, at most 4096"],
  [{ metric: METRIC, sites: [residualIn(0)], frozen: ["norms"] }, 'frozen must be one of "patterns"'],
  [{ metric: METRIC, sites: [residualIn(0)], frozen: ["neurons", "neurons"] }, "frozen names a part twice"],
  [{ metric: METRIC, sites: [residualIn(0)], rows: [] }, "rows is empty"],
  [{ metric: METRIC, path: { baseline: "mean" } }, "the baseline of a path is"],
  [{ metric: METRIC, path: { baseline: 1.5 } }, "the baseline of a path is"],
  [{ metric: METRIC, path: { baseline: {} } }, "the source of gradients is a client"],
  [{ metric: METRIC, path: { baseline: "zero", steps: 1001 } }, "steps 1001 is out of range"],
])("what makes no sense is refused before anything is sent (%#)", async (plan, words) => {
  await expect(llm.gradients(plan as GradientsPlan)).rejects.toThrow(words);
});

test("a run with edits of its own has none, nor has a place that is not there", async () => {
  const edited = llm.copy();
  await edited.run(SENTENCES, { edits: [scale(residualIn(0), 2, EVERYWHERE)] });
  await expect(edited.gradients({ metric: METRIC, sites: [residualIn(0)] })).rejects.toMatchObject({
    name: "InvalidRequestError",
  });
  await expect(by(residualIn(99))).rejects.toMatchObject({ name: "IndexOutOfRangeError" });
});

describe("of a server that lies", () => {
  const metric = (axes: Record<string, number> = { batch: 2 }) => chunkOf("metric", "F64", axes);
  const site = (name = "residual_in(0)", axes: Record<string, number> = { batch: 2, pos: 3, d_model: 4 }) =>
    chunkOf(name, "F32", axes);

  async function asked(answer: readonly object[]): Promise<readonly Tensor[]> {
    const lying = await startLiar({ ...DESCRIBED, gradients: () => answer });
    await lying.run(["one", "two"]);
    return (await lying.gradients({ metric: METRIC, sites: [residualIn(0)] })).sites;
  }

  test("what was asked for is taken", async () => {
    expect((await asked([metric(), site()]))[0]?.shape).toEqual([2, 3, 4]);
  });

  test.each<[string, object[]]>([
    ["no site", [metric()]],
    ["another site", [metric(), site("residual_in(1)")]],
    ["one more", [metric(), site(), site()]],
    ["another order", [site(), metric()]],
    ["one value twice", [metric(), metric()]],
    ["too many rows", [metric({ batch: 3 }), site()]],
    ["too many positions", [metric(), site("residual_in(0)", { batch: 2, pos: 4, d_model: 4 })]],
    ["another model", [metric(), site("residual_in(0)", { batch: 2, pos: 3, d_model: 5 })]],
    ["other axes", [metric(), site("residual_in(0)", { pos: 2, batch: 3, d_model: 4 })]],
    ["other numbers", [metric(), chunkOf("residual_in(0)", "F64", { batch: 2, pos: 3, d_model: 4 })]],
    ["nothing", []],
  ])("%s is refused", async (_, answer) => {
    await expect(asked(answer)).rejects.toMatchObject({ name: "InternalError" });
  });
});
