/** Words and ids, and what is asked of an axis that is not there. */

import { expect, inject, test } from "vitest";
import { InvalidRequestError, Tensor } from "../../src/index.js";
import { connect } from "../../src/node.js";

const SENTENCES = ["My lord, the king of France", "What"];
const llm = connect(inject("target"));
await llm.run(SENTENCES);

test("the tokens of a text are those of a run of it", async () => {
  const [text] = SENTENCES as [string];
  const [last, ofSecond] = llm.last() as [number, number];
  const row = Array.from(llm.tokens({ slices: { batch: { stop: 1 }, pos: { stop: last + 1 } } }).toFloat64());
  expect(await llm.toTokens(text)).toEqual(row);
  expect(await llm.toTokens(text, { addBos: false })).toEqual(row.slice(1));
  const strings = await llm.toStrTokens(text);
  expect(strings).toEqual(await llm.tokensToStrings(row));
  const listed = await llm.describeRun();
  expect(listed).toHaveLength(row.length + ofSecond + 1);
  expect(listed[1]).toEqual({ row: 0, pos: 1, id: row[1], text: strings[1] });
  expect(listed[row.length]?.row).toBe(1);
});

test("a text of several tokens is told with them", async () => {
  expect([await llm.toSingleToken(" king")]).toEqual(await llm.toTokens(" king", { addBos: false }));
  const refused = llm.toSingleToken(" king of France");
  await expect(refused).rejects.toThrow('" king of France" is 5 tokens, not one: " king", " of", " F", "r", "ance"');
  await expect(refused).rejects.toMatchObject({ name: "InvalidRequestError", metadata: { tokens: "5" } });
  await expect(llm.toTokens("\ud800")).rejects.toThrow(InvalidRequestError);
  await expect(llm.toTokens(7 as never)).rejects.toThrow("the text is not text but number");
});

const POS = { slices: { pos: {} } };
const HEAD = { slices: { head: {} } };
const VECTOR = new Float32Array(128);

test.each<[string, () => unknown]>([
  [
    'residual_out has no axis "head", which the slices of this call cut; its axes are batch, pos, d_model: ',
    () => llm.residualOut(0, HEAD),
  ],
  ['attention_matrix has no axis "pos"', () => llm.fetch([["logits"], ["attentionMatrix", 0, 0, 0]], POS)],
  [
    'unembed has no axis "pos", which the slices of this call cut; its axes are d_vocab: ',
    () => llm.unembed(VECTOR, true, POS),
  ],
  ['neuron_output has no axis "pos"', () => llm.neuronOutput(0, 0, POS)],
  ['tokens has no axis "head"', async () => llm.tokens(HEAD)],
  ['mask has no axis "head"', async () => llm.mask(HEAD)],
])("an axis that the value does not have is refused: %s", async (words, read) => {
  await expect(read()).rejects.toThrow(words);
  await expect(read()).rejects.toMatchObject({ name: "InvalidRequestError", reason: "INVALID_SLICE" });
});

test.each(["vocab", "d_vocab"])("the axis of the vocabulary has two names: %s", async (axis) => {
  const slices = { [axis]: { stop: 3 } };
  expect((await llm.logits({ slices })).shape[2]).toBe(3);
  expect((await llm.unembed(VECTOR, true, { slices })).shape).toEqual([3]);
  await expect(llm.logits({ slices: { vocab: {}, d_vocab: {} } })).rejects.toThrow("two names of one axis");
});

test("unembed takes a matrix", async () => {
  const rows = new Tensor({ dtype: "F32", shape: [3, 128], dims: [], bytes: new Uint8Array(3 * 512) });
  const got = await llm.unembed(rows, true);
  expect([got.dims, got.shape]).toEqual([
    ["n", "vocab"],
    [3, 1024],
  ]);
});

test("fetchParts brings values under their names", async () => {
  const [logits, attn] = await llm.fetchParts([["logits"], ["decomposedAttn", 0, 1]]);
  expect(logits).toEqual(new Map([["logits", await llm.logits()]]));
  expect(attn).toEqual(new Map([["decomposedAttn", await llm.decomposedAttn(0, 1)]]));
});
