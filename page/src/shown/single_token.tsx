/** A text that is one token, typed by whoever looks. */

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { RunView } from "../run/run_view.js";
import { Problem } from "./advice.js";
import { visible } from "./token_text.js";
import { type ReadState, useRead } from "./use_read.js";

const MOST_CHARACTERS = 200;

/** A token that was typed. */
export interface TypedToken {
  readonly text: string;
  readonly id: number;
}

/** The token of a text; undefined of an empty text, and until it is known. */
export function useSingleToken(run: RunView, text: string): ReadState<TypedToken | undefined> {
  const { value, ...rest } = useRead(
    async (signal) => (text === "" ? undefined : { text, id: await run.llm.toSingleToken(text, { signal }) }),
    [run, text],
  );
  return { ...rest, value: value?.text === text ? value : undefined };
}

/** A field for the text. It counts when it is left, or with the enter key; a space in front belongs to the token. */
export function TokenField({
  label,
  name,
  placeholder,
  text,
  onText,
  token,
}: {
  readonly label: string;
  readonly name: string;
  readonly placeholder: string;
  readonly text: string;
  readonly onText: (text: string) => void;
  readonly token: ReadState<TypedToken | undefined>;
}): JSX.Element {
  const [draft, setDraft] = useState(text); // what is typed stays when something else changes meanwhile
  return (
    <div class="token-field">
      <label>
        {label}
        <input
          type="text"
          name={name}
          size={14}
          maxLength={MOST_CHARACTERS}
          placeholder={placeholder}
          title="One token; a space in front belongs to it"
          value={draft}
          onInput={(event) => setDraft(event.currentTarget.value)}
          onChange={(event) => onText(event.currentTarget.value)}
        />
      </label>
      {token.value !== undefined && (
        <span class="quiet">
          <bdi class="token">{visible(token.value.text)}</bdi> is token {token.value.id}
        </span>
      )}
      {token.error !== undefined && <Problem error={token.error} />}
    </div>
  );
}
