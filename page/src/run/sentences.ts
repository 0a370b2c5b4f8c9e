/**
 * The sentences that can be chosen: examples, those of a data set of the server, what was run, and those of a file of the
 * user's, which goes nowhere.
 */

/** Of the demo model's world. */
export const EXAMPLES = [
  "My lord, the king of France is dead; my lord, the king of",
  "What say you, gentle friend? What say you,",
] as const;

const MOST_SENTENCES = 1000;
const MOST_BYTES = 2 ** 20;

/** A file is no list of sentences. */
export class FileError extends Error {
  override readonly name = "FileError";
}

/**
 * The lines of a text file that are not empty.
 *
 * @throws FileError it is too large, has too many lines, or is no text.
 */
export async function sentencesOf(file: File): Promise<string[]> {
  if (file.size > MOST_BYTES) {
    throw new FileError(`the file has ${file.size} bytes, at most ${MOST_BYTES} can be opened`);
  }
  const lines = textOf(await file.arrayBuffer())
    .split(/\r?\n/)
    .filter((line) => line.trim() !== "");
  if (lines.length > MOST_SENTENCES) {
    throw new FileError(`the file has ${lines.length} sentences, at most ${MOST_SENTENCES} can be chosen from`);
  }
  return lines;
}

/** With one more at the end, if it is not there; the oldest is left out where there would be too many. */
export function withSentence(sentences: readonly string[], sentence: string): readonly string[] {
  return sentences.includes(sentence) || sentence === "" ? sentences : [...sentences, sentence].slice(-MOST_SENTENCES);
}

function textOf(bytes: ArrayBuffer): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new FileError("the file is no text in UTF-8");
  }
}
