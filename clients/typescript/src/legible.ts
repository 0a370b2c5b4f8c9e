/** The words of a server, within bounds: more would be there to fill memories and terminals. */

const MOST_ENTRIES = 32;
const MOST_KEY = 64;
const MOST_VALUE = 1024;

/** Of a message, in characters. */
export const MOST_MESSAGE = 4096;

/** What a terminal obeys, or what turns the direction of writing; line breaks and tabs are none of it. */
const OBEYED = /[\p{Cc}\p{Bidi_Control}]/gu;

/** A text as it can be printed: so many characters at most, and none that a terminal obeys. */
export function legible(text: string, most: number): string {
  const start = text.length > most ? `${text.slice(0, most)}...` : text;
  return start.replace(OBEYED, (sign) => (sign === "\n" || sign === "\t" ? sign : "\ufffd"));
}

/** A text that is quoted in a message. */
export function quoted(text: string): string {
  return JSON.stringify(legible(text, 100));
}

/** Entries of a server's, within bounds. */
export function legibleMetadata(metadata: Readonly<Record<string, string>>): Record<string, string> {
  const kept = Object.entries(metadata).filter(([key]) => key.length <= MOST_KEY);
  return Object.fromEntries(
    kept.slice(0, MOST_ENTRIES).map(([key, value]) => [legible(key, MOST_KEY), legible(value, MOST_VALUE)]),
  );
}

/** Whether a text is a constant as those of errors.proto. */
export function isReason(text: string): boolean {
  return /^[A-Z0-9_]{1,64}$/.test(text);
}
