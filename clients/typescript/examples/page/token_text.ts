/** Tokens so that a reader sees what they begin and end with. */

const SHOWN: Readonly<Record<string, string>> = { " ": "·", "\n": "↵", "\t": "⇥", "\r": "␍" };

/** The text of a token with its spaces and breaks visible. */
export function visible(token: string): string {
  return token.replace(/[ \n\t\r]/g, (sign) => SHOWN[sign] as string);
}
