/** A model with a sparse autoencoder and a chat template, of which the demo model has neither. */

import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { clampFeature, EVERYWHERE, residualOut, saeFeature, setTo } from "../../src/interventions.js";
import { connect, type GenerationStep, NotSupportedError, type RemoteTransparentLlm } from "../../src/node.js";
import type { Child } from "../support/child.js";
import { startTinyServer } from "../support/server.js";

const ROWS = [
  [1, 2, 3, 4, 5, 6],
  [7, 8, 9],
];
const K = 4;

let server: Child;
let llm: RemoteTransparentLlm;

beforeAll(async () => {
  server = await startTinyServer();
  llm = connect(server.said);
  await llm.runTokens(ROWS);
});

afterAll(async () => {
  llm.close();
  await server.stop();
});

test("the server says which sparse autoencoders a model has", async () => {
  const { models } = await llm.serverInfo();
  expect(models[0]?.saes).toMatchObject([
    { name: "random", site: "residual_out.0", dSae: 24, architecture: "standard" },
  ]);
});

test("the most active features are those that all activations have", async () => {
  const { ids, activations, active, errorNorm, explained } = await llm.features(0, { sae: "random", k: K });
  const all = await llm.featureActivations(0, { featureIds: Array.from({ length: 24 }, (_, i) => i) });
  expect([ids.shape, all.shape, errorNorm.shape, explained.shape]).toEqual([[6, K], [6, 24], [6], [6]]);
  for (let pos = 0; pos < 6; pos++) {
    const ofPos = Array.from({ length: 24 }, (_, feature) => all.at(pos, feature));
    const best = ofPos.map((value, feature) => [value, feature] as const).sort(([a], [b]) => b - a);
    expect(active.at(pos)).toBe(ofPos.filter((value) => value > 0).length);
    for (let rank = 0; rank < Math.min(K, active.at(pos)); rank++) {
      expect([activations.at(pos, rank), ids.at(pos, rank)]).toEqual(best[rank]);
    }
  }
});

test("they come with other values in one stream, at the positions that are asked for", async () => {
  const [found, logits] = await llm.fetchParts([["features", 1, { positions: [-1], k: 2 }], ["logits"]]);
  expect(found?.get("ids")?.shape).toEqual([1, 2]);
  expect(logits?.get("logits")?.shape.slice(0, 2)).toEqual([2, 6]);
});

test("a feature is clamped along its direction, which is a vector of edits", async () => {
  const edited = llm.copy();
  const plain = (await llm.residualOut(0)).toFloat32();
  const active = await llm.featureActivations(0, { featureIds: [3] });
  await edited.runTokens(ROWS, { edits: [setTo(residualOut(0), saeFeature("random", 3), EVERYWHERE)] });
  const decoder = await edited.residualOut(0);
  await edited.runTokens(ROWS, {
    edits: [clampFeature(residualOut(0), "random", 3, { ...EVERYWHERE, least: 5, most: 5 })],
  });
  const clamped = await edited.residualOut(0);
  for (let i = 0; i < 10; i++) {
    const wanted = (plain[i] as number) + (5 - active.at(0, 0)) * decoder.at(0, 0, i);
    expect(clamped.at(0, 0, i)).toBeCloseTo(wanted, 4);
  }
  await edited.runTokens(ROWS, { edits: [setTo(residualOut(0), saeFeature("random", 3, "encoder"), EVERYWHERE)] });
  expect((await edited.residualOut(0)).bytes).not.toEqual(decoder.bytes);
});

test("what makes no sense is refused before anything is sent", async () => {
  expect(() => saeFeature("", 1)).toThrow("sae is empty");
  expect(() => saeFeature("random", 1.5)).toThrow("feature must be an integer");
  expect(() => saeFeature("random", 1, "both" as "decoder")).toThrow('direction must be "decoder" or "encoder"');
  expect(() => clampFeature(residualOut(0), "random", 1, { ...EVERYWHERE, least: 2, most: 1 })).toThrow(
    "between 2 and 1",
  );
  await expect(llm.features(0, { sae: "x".repeat(257) })).rejects.toThrow("a name of at most 256 characters");
  await expect(llm.features(0, { sae: 3 as unknown as string })).rejects.toThrow("sae is not text but number");
});

test("what the server refuses is its refusal", async () => {
  await expect(llm.features(0, { sae: "another", k: 1 })).rejects.toMatchObject({ name: "InvalidRequestError" });
  await expect(llm.featureActivations(0, { featureIds: [24] })).rejects.toMatchObject({ name: "IndexOutOfRangeError" });
  const demo = connect(inject("target"));
  try {
    await demo.run(["My lord"]);
    await expect(demo.features(0, { k: 1 })).rejects.toBeInstanceOf(NotSupportedError);
    await expect(demo.generateChat([{ role: "user", content: "Who?" }])).rejects.toBeInstanceOf(NotSupportedError);
  } finally {
    demo.close();
  }
});

test("a chat is one row, as the template of the tokenizer has it", async () => {
  const steps: GenerationStep[] = [];
  const chatting = llm.copy();
  const messages = [
    { role: "system", content: "The mill" },
    { role: "user", content: "What is it?" },
  ];
  await chatting.generateChat(messages, { maxNewTokens: 2, onStep: (step) => steps.push(step) });
  const prompt = await chatting.toTokens("system: The mill\nuser: What is it?\nmill:", { addBos: false });
  const tokens = Array.from(chatting.tokens().toFloat64());
  expect(tokens).toEqual([...prompt, steps[0]?.[0]?.tokenId]);
  await chatting.generateTokens([prompt], { maxNewTokens: 2 });
  expect(Array.from(chatting.tokens().toFloat64())).toEqual(tokens);
});

test.each([
  [undefined, "messages is an array"],
  [[], "messages is an array"],
  ["hello", "messages is an array"],
  [[{ role: "user" }], "message 0 of a chat must have a role and a content"],
  [[{ role: "user", content: "a", name: "b" }], "nothing else"],
  [[{ role: "user", content: 3 }], "the content of message 0 is not text"],
  [Array(1025).fill({ role: "user", content: "a" }), "1025 messages of a chat, at most 1024"],
])("what is no chat is refused (%#)", async (messages, words) => {
  await expect(llm.generateChat(messages as never)).rejects.toThrow(words);
});
