import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { InvalidRequestError } from "../../src/errors.js";
import { inputOfSentences, inputOfTokens, runKey, tokenIdsOf } from "../../src/run_input.js";
import { sha256Hex } from "../../src/sha256.js";

test("SHA-256 is the one of Node, around the ends of its blocks too", () => {
  for (let length = 0; length < 200; length++) {
    const text = "é".repeat(length);
    expect(sha256Hex(text)).toBe(createHash("sha256").update(text).digest("hex"));
  }
});

/** Made by `RunInput.key` of the Python client. */
test("the routing key is the Python client's", () => {
  expect(runKey(inputOfSentences(["My lord"]), "")).toBe("102382f394abacb52575588ded7e5dae");
  const awkward = inputOfSentences(['é "q" \\ \n\x01\x7f 😀 a/b', ""]);
  expect(runKey(awkward, "demo")).toBe("61843cab038b0bccb9235b963e756886");
  expect(runKey(inputOfTokens([[0, 1, 532], [7]]), "")).toBe("b8e823fd72a2c161dd2cdcbe35ce2f65");
  expect(runKey(inputOfTokens([]), "")).toBe("54e052f16626a22d4c5832fd05dd580e");
});

test.each([["one string"], [undefined], [[1]], [["fine", null]], [["half of a pair \ud83d"]]])(
  "run(%j) is refused",
  (given) => {
    expect(() => inputOfSentences(given as never)).toThrow(InvalidRequestError);
  },
);

test.each([["0 1"], [[0, 1]], [["01"]], [[[0.5]]], [[[Number.NaN]]]])("runTokens(%j) is refused", (given) => {
  expect(() => inputOfTokens(given as never)).toThrow(expect.objectContaining({ reason: "INVALID_REQUEST" }));
});

test.each([[-1], [2 ** 31], [-1n]])("the token %s is in no vocabulary", (id) => {
  const refused = expect.objectContaining({ reason: "UNKNOWN_TOKEN", metadata: { token: String(id) } });
  expect(() => tokenIdsOf([id] as never)).toThrow(refused);
});

test("ids of a tensor of integers", () => {
  expect(tokenIdsOf(BigInt64Array.of(3n, 5n))).toEqual([3, 5]);
});
