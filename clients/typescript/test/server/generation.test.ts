/** A model that goes on with texts: token by token what its own logits say, and then a run like any other. */

import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import { EVERYWHERE, head, zero } from "../../src/interventions.js";
import { connect, type Edit, type GenerationStep, type RemoteTransparentLlm } from "../../src/node.js";

const PROMPT = "My lord, the king of";
const COUNT = 5;

let llm: RemoteTransparentLlm;

beforeAll(() => {
  llm = connect(inject("target"));
});

afterAll(() => llm.close());

/** The likeliest tokens, each found of a run of all tokens before it. */
async function byRuns(edits: readonly Edit[]): Promise<{ prompt: number[]; ids: number[]; logprobs: number[] }> {
  const other = llm.copy();
  const prompt = await other.toTokens(PROMPT);
  const [ids, logprobs]: [number[], number[]] = [[], []];
  for (let step = 0; step < COUNT; step++) {
    await other.runTokens([[...prompt, ...ids]], { edits });
    const logits = (await other.logits({ dtype: "F32", slices: { pos: { start: -1 } } })).toFloat64();
    const best = logits.indexOf(Math.max(...logits));
    logprobs.push((logits[best] as number) - Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0)));
    ids.push(best);
  }
  return { prompt, ids, logprobs };
}

describe.each([
  ["the model as it is", []],
  ["an edited model", [zero(head(0, 0), EVERYWHERE)]],
])("%s", (_, edits) => {
  test("says what its logits say, and its run is that of what was read", async () => {
    const steps: GenerationStep[] = [];
    await llm.generate([PROMPT], { maxNewTokens: COUNT, topLogprobs: 2, edits, onStep: (step) => steps.push(step) });
    const { prompt, ids, logprobs } = await byRuns(edits);
    expect(steps.map(([token]) => token?.tokenId)).toEqual(ids);
    steps.forEach(([token], i) => {
      expect(token?.logprob).toBeCloseTo(logprobs[i] as number, 4);
      expect(token?.topIds[0]).toBe(ids[i]);
      expect(token?.finished).toBe(i === COUNT - 1 ? "length" : undefined);
    });
    expect(steps.map(([token]) => token?.text)).toEqual(await llm.tokensToStrings(ids));
    const same = llm.copy();
    await same.runTokens([[...prompt, ...ids.slice(0, -1)]], { edits });
    expect(llm.runId).toBe(same.runId);
    expect((await llm.residualOut(1)).bytes).toEqual((await same.residualOut(1)).bytes);
    expect(llm.effects().length).toBe(edits.length);
  });
});

test("rows go on as if each were alone, and a stop ends one of them", async () => {
  const prompts = [await llm.toTokens(PROMPT), await llm.toTokens("What say you")];
  const alone: (number | undefined)[][] = [];
  for (const prompt of prompts) {
    const steps: GenerationStep[] = [];
    await llm.generateTokens([prompt], { maxNewTokens: COUNT, onStep: (step) => steps.push(step) });
    alone.push(steps.map(([token]) => token?.tokenId));
  }
  const stop = alone[0]?.[1] as number;
  const steps: GenerationStep[] = [];
  await llm.generateTokens(prompts, { maxNewTokens: COUNT, stop: [stop], onStep: (step) => steps.push(step) });
  expect(steps[1]?.[0]).toMatchObject({ tokenId: stop, finished: "stop" });
  expect(steps[2]?.[0]).toBeUndefined();
  const second = alone[1] ?? [];
  const until = second.includes(stop) ? second.indexOf(stop) + 1 : COUNT;
  expect(steps.map((step) => step[1]?.tokenId).slice(0, until)).toEqual(second.slice(0, until));
});

test("the same seed draws the same", async () => {
  const drawn = async (seed: number): Promise<(number | undefined)[]> => {
    const steps: GenerationStep[] = [];
    const options = { maxNewTokens: 8, temperature: 1.5, topK: 50, topP: 0.95, seed };
    await llm.generate([PROMPT], { ...options, onStep: (step) => steps.push(step) });
    return steps.map(([token]) => token?.tokenId);
  };
  expect(await drawn(3)).toEqual(await drawn(3));
  expect(await drawn(3)).not.toEqual(await drawn(4));
});

test("who leaves after a step ends it, and the run of before stays", async () => {
  await llm.run([PROMPT]);
  const [before, stop] = [llm.runId, new AbortController()];
  let steps = 0;
  const onStep = (): void => {
    steps++;
    stop.abort();
  };
  await expect(llm.generate([PROMPT], { maxNewTokens: 60, signal: stop.signal, onStep })).rejects.toMatchObject({
    name: "CancelledError",
  });
  expect(steps).toBeLessThan(60);
  expect(llm.runId).toBe(before);
});

test.each([
  [{ maxNewTokens: 0 }, "maxNewTokens is 0"],
  [{ temperature: Number.NaN }, "temperature is NaN"],
  [{ topK: 0 }, "topK is 0"],
  [{ topP: 2 }, "topP is 2"],
  [{ seed: -1 }, "seed is -1"],
  [{ topLogprobs: 21 }, "21 topLogprobs, at most 20"],
  [{ stop: Array(17).fill("x") }, "17 stop strings, at most 16"],
  [{ stop: [""] }, "a stop string is empty"],
  [{ stop: ["x".repeat(257)] }, "257 bytes of one stop string, at most 256"],
  [{ stop: [-1] }, "token -1 is not in the vocabulary"],
  [{ edits: [zero(head(0, 0), { positions: "last", rows: "all" })] }, "the last token is another one in every step"],
  [{ edits: [zero(head(0, 0), { positions: [0, -1], rows: "all" })] }, "the last token is another one in every step"],
  [{ maxNewTokens: 100_000 }, "100"],
])("%j is refused", async (options, words) => {
  await expect(llm.generate([PROMPT], options)).rejects.toThrow(words);
});
