/** A frame around what may be wider or higher than the screen: it scrolls, by the keyboard too. */

import type { ComponentChildren, JSX } from "preact";

export function ScrollFrame({
  name,
  children,
}: {
  /** What is in it, for screen readers. */
  readonly name: string;
  readonly children: ComponentChildren;
}): JSX.Element {
  return (
    <section class="scroll-frame" aria-label={name} tabIndex={0}>
      {children}
    </section>
  );
}
