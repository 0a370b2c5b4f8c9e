/** Tokens as text: spaces, line breaks and what has no width can be seen, and each keeps its own direction. */

import type { JSX } from "preact";

const LONGEST = 24;
const MOST_OF_ROW = 160;
const MARKS: Readonly<Record<string, string>> = { " ": "·", "\n": "↵", "\r": "␍", "\t": "⇥", "\u00a0": "⍽" };

/** A token with everything in it visible, and at most `longest` characters. */
export function visible(token: string, longest = LONGEST): string {
  const shown = Array.from(token, (letter) => MARKS[letter] ?? (isUnseen(letter) ? code(letter) : letter));
  if (shown.length === 0) {
    return "∅";
  }
  return shown.length > longest ? `${shown.slice(0, longest - 1).join("")}…` : shown.join("");
}

/** A row of tokens as one text, with its last words, by which most sentences differ that are compared. */
export function shortened(tokens: readonly string[]): string {
  const text = tokens
    .map((token) => visible(token))
    .join("")
    .replaceAll("·", " ");
  return text.length > MOST_OF_ROW ? `…${text.slice(1 - MOST_OF_ROW)}` : text;
}

/** A token between other text: a right-to-left one turns nothing around it. */
export function TokenText({ token }: { readonly token: string }): JSX.Element {
  return (
    <bdi class="token" title={JSON.stringify(token)}>
      {visible(token)}
    </bdi>
  );
}

function isUnseen(letter: string): boolean {
  return /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Co}\p{Cn}]/u.test(letter);
}

function code(letter: string): string {
  return `⟨${(letter.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}⟩`;
}
