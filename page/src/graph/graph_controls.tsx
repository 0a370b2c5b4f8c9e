/** What of the graph counts. These controls ask the server nothing. */

import type { JSX } from "preact";
import { usePage } from "../page_state.js";

export function GraphControls(): JSX.Element {
  const page = usePage();
  const threshold = page.threshold.value;
  return (
    <fieldset class="controls">
      <legend>Edges</legend>
      <label>
        Threshold <output>{threshold.toFixed(2)}</output>
        <input
          type="range"
          name="threshold"
          min="0.01"
          max="0.1"
          step="0.01"
          value={threshold}
          onInput={(event) => {
            page.threshold.value = Number(event.currentTarget.value);
          }}
        />
      </label>
      <label>
        <input
          type="checkbox"
          name="renormalize"
          checked={page.renormalize.value}
          onChange={(event) => {
            page.renormalize.value = event.currentTarget.checked;
          }}
        />
        Renormalize after the threshold
      </label>
      <label>
        <input
          type="checkbox"
          name="normalize"
          checked={page.normalize.value}
          onChange={(event) => {
            page.normalize.value = event.currentTarget.checked;
          }}
        />
        Normalize before unembedding
      </label>
    </fieldset>
  );
}
