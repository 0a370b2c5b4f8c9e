/** Top tokens of a vector are the best and the worst of all its logits. */

import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { connect, type RemoteTransparentLlm, Tensor } from "../../src/node.js";
import { ScriptedServer } from "../support/scripted_server.js";

let llm: RemoteTransparentLlm;
let vector: Tensor;

beforeAll(async () => {
  llm = connect(inject("target"));
  const { dModel } = await llm.modelInfo();
  vector = Tensor.ofFloats(Array.from({ length: dModel }, (_, i) => Math.sin(i * i)));
});

afterAll(() => llm.close());

test.each([true, false])("are those of unembed, normalize %o, without a run", async (normalize) => {
  const logits = [...(await llm.unembed(vector, normalize)).toFloat32()];
  const ranked = logits.map((logit, id) => ({ logit, id })).sort((a, b) => b.logit - a.logit);
  const [best, worst] = [ranked.slice(0, 5), ranked.slice(-3).reverse()];
  const found = await llm.topTokens(vector, { normalize, k: 5, bottomK: 3 });
  expect(found).toEqual({
    topIds: best.map(({ id }) => id),
    topLogits: best.map(({ logit }) => expect.closeTo(logit, 4)),
    bottomIds: worst.map(({ id }) => id),
    bottomLogits: worst.map(({ logit }) => expect.closeTo(logit, 4)),
    logsumexp: expect.closeTo(Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0)), 4),
  });
  expect(await llm.topTokens([...vector.toFloat32()], { normalize, k: 5, bottomK: 3 })).toEqual(found);
});

test("of a run's output are the model's own next tokens", async () => {
  await llm.run(["My lord, I shall reply"]);
  const slices = { pos: { start: -1 } };
  const out = await llm.residualOut(-1, { slices });
  const { topIds, topLogits, bottomIds, logsumexp } = await llm.topTokens(out.toFloat32(), { normalize: true });
  const lens = await llm.layerLens(0, -1, { positions: [-1], k: 10 });
  expect(topIds).toEqual([...lens.topIds.toFloat64()]);
  expect(bottomIds).toEqual([]);
  expect(Math.exp((topLogits[0] as number) - logsumexp)).toBeLessThan(1);
});

test("the vector is that of the call, whatever is written to it then", async () => {
  const given = Tensor.ofFloats(vector.toFloat32().slice());
  const fresh = connect(inject("target")); // it asks for the server's features first
  const asked = fresh.topTokens(given);
  given.bytes.fill(0);
  expect(await asked).toEqual(await llm.topTokens(vector));
  fresh.close();
});

test.each<[string, unknown, object, object]>([
  ["rows", Tensor.ofFloats([1, 2], [1, 2]), {}, { reason: "INVALID_SHAPE" }],
  ["integers", new Tensor({ dtype: "I8", shape: [1], bytes: new Uint8Array(1) }), {}, { reason: "INVALID_DTYPE" }],
  ["another width", [1, 2], {}, { reason: "INVALID_SHAPE" }],
  ["too many", [1], { k: 4097 }, { message: expect.stringContaining("k 4097 is out of range: 0 to 4096") }],
  ["fewer than none", [1], { bottomK: -1 }, { message: expect.stringContaining("bottomK -1 is out of range") }],
  ["a part of a token", [1], { k: 0.5 }, { message: expect.stringContaining("k must be an integer") }],
])("%s", async (_, given, options, error) => {
  await expect(llm.topTokens(given as Tensor, options)).rejects.toMatchObject({
    name: "InvalidRequestError",
    ...error,
  });
});

test("a server that finds none is not asked", async () => {
  const server = await ScriptedServer.start({ serverInfo: () => ({ features: ["edits"] }) });
  const client = connect(server.address);
  await expect(client.topTokens([1])).rejects.toMatchObject({ name: "NotSupportedError" });
  client.close();
  await server.close();
});
