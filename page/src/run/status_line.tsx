/** What the page is at, and what went wrong. */

import type { JSX } from "preact";
import { usePage } from "../page_state.js";
import { Problem } from "../shown/advice.js";

export function StatusLine(): JSX.Element {
  const { status, connection } = usePage();
  const now = status.value;
  return (
    <div class="status" data-state={now.kind}>
      <p role="status">{now.words}</p>
      {now.kind === "busy" && (
        <progress aria-label="Progress" {...(now.share === undefined ? {} : { value: now.share })} />
      )}
      {now.kind === "failed" && <Problem error={now.error} />}
      {!connection.isThere.value && (
        <p class="problem" role="alert">
          {connection.address} does not answer. It is asked again every two seconds.
        </p>
      )}
    </div>
  );
}
