import { expect, test } from "vitest";
import { visible } from "../../src/shown/token_text.js";

test.each([
  [" king", "·king"],
  ["\n", "↵"],
  ["\t", "⇥"],
  ["", "∅"],
  ["\u202e", "⟨202E⟩"],
  ["\u0000", "⟨0000⟩"],
  ["שלום", "שלום"],
  ["日本語", "日本語"],
  ["👩‍👩‍👧", "👩⟨200D⟩👩⟨200D⟩👧"],
  ["<script>", "<script>"],
  ["a".repeat(40), `${"a".repeat(23)}…`],
])("%j is shown as %s", (token, shown) => {
  expect(visible(token)).toBe(shown);
});
