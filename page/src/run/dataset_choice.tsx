/** The data sets of the server's operator, to choose sentences from. */

import type { JSX } from "preact";
import { useRef, useState } from "preact/hooks";
import { usePage } from "../page_state.js";
import { isStopped, Problem } from "../shown/advice.js";
import { EXAMPLES } from "./sentences.js";

/** Nothing where the operator offers none. */
export function DatasetChoice({
  onChoose,
}: {
  readonly onChoose: (sentences: readonly string[]) => void;
}): JSX.Element | null {
  const page = usePage();
  const [name, setName] = useState("");
  const [error, setError] = useState<unknown>();
  const latest = useRef(new AbortController());
  const datasets = page.connection.server.value?.datasets ?? [];
  const choose = async (chosen: string): Promise<void> => {
    latest.current.abort();
    const stop = new AbortController();
    latest.current = stop;
    setName(chosen);
    setError(undefined);
    if (chosen === "") {
      onChoose(EXAMPLES);
      return;
    }
    const llm = page.connection.client(page.model.value);
    try {
      onChoose(await page.connection.watched(llm.dataset(chosen, { signal: stop.signal })));
    } catch (problem) {
      page.connection.failed(problem);
      if (!stop.signal.aborted && !isStopped(problem)) {
        setName("");
        setError(problem);
      }
    } finally {
      llm.close();
    }
  };
  if (datasets.length === 0) {
    return null;
  }
  return (
    <>
      <label>
        Data set
        <select name="dataset" value={name} onChange={(event) => void choose(event.currentTarget.value)}>
          <option value="">(examples)</option>
          {datasets.map((each) => (
            <option key={each.name} value={each.name}>
              {each.name} ({each.nSentences})
            </option>
          ))}
        </select>
      </label>
      {error !== undefined && <Problem error={error} />}
    </>
  );
}
