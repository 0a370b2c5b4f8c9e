// Lines in, lines out, one after the other.

import { createInterface } from "node:readline";

/**
 * Until the end of the input.
 *
 * @param {(line: string) => Promise<string>} answer
 */
export async function answerLines(answer) {
  for await (const line of createInterface({ input: process.stdin, crlfDelay: Number.POSITIVE_INFINITY })) {
    const text = `${await answer(line)}\n`;
    await new Promise((resolve) => process.stdout.write(text, resolve));
  }
}
