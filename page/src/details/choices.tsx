/** One of several parts to look at: each with its share, as a dot and as a number. */

import type { JSX } from "preact";
import { sequential } from "../shown/scale.js";

/** Something that can be chosen. */
export interface Choice<T> {
  readonly value: T;
  readonly label: string;
  /** What it contributed. Undefined: nothing is said of it. */
  readonly share?: number | undefined;
  /** What else is known of it. */
  readonly note?: string | undefined;
}

/** Buttons, of which one is pressed. The brightest dot is that of the largest share. */
export function Choices<T extends string | number>({
  label,
  choices,
  chosen,
  onChoose,
}: {
  readonly label: string;
  readonly choices: readonly Choice<T>[];
  readonly chosen: T;
  readonly onChoose: (value: T) => void;
}): JSX.Element {
  const most = Math.max(0, ...choices.map(({ share }) => share ?? 0));
  return (
    <ul class="choices" aria-label={label}>
      {choices.map(({ value, label, share, note }) => (
        <li key={value}>
          <button type="button" data-choice={value} aria-pressed={value === chosen} onClick={() => onChoose(value)}>
            {share !== undefined && (
              <span class="dot" aria-hidden="true" style={{ background: sequential(most > 0 ? share / most : 0) }} />
            )}
            <span>{label}</span>
            {share !== undefined && <span data-share>{share.toFixed(4)}</span>}
            {note !== undefined && <span data-note>{note}</span>}
          </button>
        </li>
      ))}
    </ul>
  );
}
