import { expect, test } from "vitest";
import { spanAround } from "../../src/details/span.js";

test.each([
  ["a short row is whole", 3, 10, { start: 0, stop: 10 }],
  ["of a long row the middle is around the position", 500, 1000, { start: 372, stop: 628 }],
  ["at its start", 5, 1000, { start: 0, stop: 256 }],
  ["at its end", 999, 1000, { start: 744, stop: 1000 }],
])("%s", (_, pos, nTokens, span) => {
  expect(spanAround(pos, nTokens)).toEqual(span);
});
