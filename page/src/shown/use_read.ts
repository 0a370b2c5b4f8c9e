/** A value of the server as a component has it: coming, there, or failed. */

import { useEffect, useRef, useState } from "preact/hooks";
import { usePage } from "../page_state.js";
import { isStopped } from "./advice.js";

/** What is known of a value. While a new one is read, `value` is still the one before. */
export interface ReadState<T> {
  readonly value?: T | undefined;
  readonly error?: unknown;
  readonly isComing: boolean;
}

/**
 * Read when the component appears and whenever one of `inputs` changes; what is not wanted any more is cancelled, here and
 * on the server. What failed because the server was gone is read again when it is back.
 */
export function useRead<T>(read: (signal: AbortSignal) => Promise<T>, inputs: readonly unknown[]): ReadState<T> {
  const { connection } = usePage();
  const [state, setState] = useState<ReadState<T>>({ isComing: true });
  const latest = useRef(read);
  latest.current = read;
  const returns = connection.returns.value;
  useEffect(() => {
    const stop = new AbortController();
    setState((before) => ({ value: before.value, isComing: true }));
    connection.watched(latest.current(stop.signal)).then(
      (value) => {
        if (!stop.signal.aborted) {
          setState({ value, isComing: false });
        }
      },
      (error: unknown) => {
        if (!stop.signal.aborted && !isStopped(error)) {
          connection.failed(error);
          setState({ error, isComing: false });
        }
      },
    );
    return () => stop.abort();
  }, [...inputs, returns]);
  return state;
}
