/** The frame around a value that is read: it says that it is coming, or why it failed. */

import type { ComponentChildren, JSX } from "preact";
import { Problem } from "./advice.js";
import type { ReadState } from "./use_read.js";

/** What `children` make of the value, as soon as there is one. */
export function Reading<T>({
  of,
  children,
}: {
  readonly of: ReadState<T>;
  readonly children: (value: T) => ComponentChildren;
}): JSX.Element {
  if (of.error !== undefined) {
    return <Problem error={of.error} />;
  }
  return (
    <div class="reading" aria-busy={of.isComing}>
      {of.value === undefined ? <p class="quiet">Reading …</p> : children(of.value)}
    </div>
  );
}
