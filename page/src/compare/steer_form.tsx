/** Toward which token a stream is steered, and how far. */

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { RunView } from "../run/run_view.js";
import { isStopped, Problem } from "../shown/advice.js";

const MOST_CHARACTERS = 200;

export function SteerForm({
  run,
  onToken,
}: {
  readonly run: RunView;
  readonly onToken: (token: number, factor: number) => void;
}): JSX.Element {
  const [text, setText] = useState("");
  const [factor, setFactor] = useState("1");
  const { find, error } = useToken(run);
  return (
    <form
      class="toolbar"
      onSubmit={(event) => {
        event.preventDefault();
        find(text, (token) => onToken(token, Number(factor)));
      }}
    >
      <label>
        Toward the token{" "}
        <input
          name="steer-token"
          required
          size={8}
          maxLength={MOST_CHARACTERS}
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
        />
      </label>
      <label>
        times its norm{" "}
        <input
          name="steer-factor"
          type="number"
          step="any"
          required
          value={factor}
          onInput={(event) => setFactor(event.currentTarget.value)}
        />
      </label>
      <button type="submit">Steer here</button>
      {error !== undefined && <Problem error={error} />}
    </form>
  );
}

/** Asks the server for the id of a token; of several questions the last one counts. */
export function useToken(run: RunView): {
  readonly find: (text: string, onToken: (token: number) => void) => void;
  readonly error: unknown;
} {
  const [error, setError] = useState<unknown>();
  const stop = useRef(new AbortController());
  useEffect(() => () => stop.current.abort(), []);
  const find = (text: string, onToken: (token: number) => void): void => {
    stop.current.abort();
    stop.current = new AbortController();
    const { signal } = stop.current;
    setError(undefined);
    run.llm.toSingleToken(text, { signal }).then(
      (token) => signal.aborted || onToken(token),
      (problem: unknown) => signal.aborted || isStopped(problem) || setError(problem),
    );
  };
  return { find, error };
}
