import { expect, test } from "vitest";
import { InvalidRequestError } from "../../src/errors.js";
import { inputOfSentences, inputOfTokens, runKey, tokenIdsOf } from "../../src/run_input.js";

/** Literal keys, the same in the tests of every client; docs/PROTOCOL.md has the definition. */
test.each([
  ["", inputOfSentences(["My lord, the king of France is dead"]), "e0ecca658ae862b5f227d59699dd1529"],
  ["demo", inputOfSentences(["My lord"]), "772583d45b6fbfa9c9c1fff0c085c2da"],
  ["", inputOfSentences(['Ä 𝕏 "\\\n', ""]), "7d4c8dec3527b914ef839ef8df9ef0a3"],
  ["demo", inputOfTokens([[0, 1023, 2147483647], []]), "128e08778faa0cd0736b3b391424f3ac"],
  ["ü", inputOfTokens([]), "fe5a0e475e182f6350c5bfddc7a45d4e"],
])("the routing key for the model %j and the input %j", (model, input, key) => {
  expect(runKey(input, model)).toBe(key);
});

test.each([["one string"], [undefined], [[1]], [["fine", null]], [["half of a pair \ud83d"]]])(
  "run(%j) is refused",
  (given) => {
    expect(() => inputOfSentences(given as never)).toThrow(InvalidRequestError);
  },
);

test.each([["0 1"], [[0, 1]], [["01"]], [[[0.5]]], [[[Number.NaN]]], [[["1"]]], [[[null]]], [[[true]]]])(
  "runTokens(%j) is refused",
  (given) => {
    expect(() => inputOfTokens(given as never)).toThrow(expect.objectContaining({ reason: "INVALID_REQUEST" }));
  },
);

test.each([[-1], [2 ** 31], [-1n]])("the token %s is in no vocabulary", (id) => {
  const refused = expect.objectContaining({ reason: "UNKNOWN_TOKEN", metadata: { token: String(id) } });
  expect(() => tokenIdsOf([id] as never)).toThrow(refused);
});

test("ids of a tensor of integers", () => {
  expect(tokenIdsOf(BigInt64Array.of(3n, 5n))).toEqual([3, 5]);
});
