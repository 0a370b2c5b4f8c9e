/** The sentences that an operator offers. */

import { afterAll, beforeAll, expect, inject, test } from "vitest";
import { connect, InvalidRequestError, type RemoteTransparentLlm } from "../../src/node.js";

let llm: RemoteTransparentLlm;

beforeAll(() => {
  llm = connect(inject("target"));
});

afterAll(() => llm.close());

test("the server names its data sets, and gives their sentences", async () => {
  expect((await llm.serverInfo()).datasets).toEqual([{ name: "lines", nSentences: 4 }]);
  const sentences = ["To be, or not to be", "日本語の文章", '<script>alert("no")</script>', "What say you, my lord?"];
  expect(await llm.dataset("lines")).toEqual(sentences);
});

test("one that is not there is refused with the names of those that are", async () => {
  await expect(llm.dataset("rhymes")).rejects.toThrow("there is no data set 'rhymes'; there are lines");
  await expect(llm.dataset("rhymes")).rejects.toBeInstanceOf(InvalidRequestError);
});
