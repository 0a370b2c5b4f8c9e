/** Tokens so that a reader sees what they begin and end with. */

const SHOWN: Readonly<Record<string, string>> = { " ": "·", "\n": "↵", "\t": "⇥", "\r": "␍" };

/** The text of a token with its spaces and breaks visible, and nothing that turns the direction of the page's own text. */
export function visible(token: string): string {
  return token.replace(/[ \p{Cc}\p{Bidi_Control}]/gu, (sign) => SHOWN[sign] ?? "\ufffd");
}
