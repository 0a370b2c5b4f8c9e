/** A frame around what may be wider or higher than the screen: it scrolls, by the keyboard too. */

import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";

const MARGIN = 24;

/** What is marked by `data-in-sight` can be seen at first. */
export function ScrollFrame({
  name,
  children,
}: {
  /** What is in it, for screen readers. */
  readonly name: string;
  readonly children: ComponentChildren;
}): JSX.Element {
  const frame = useRef<HTMLElement>(null);
  useEffect(() => {
    const mark = frame.current?.querySelector("[data-in-sight]");
    if (frame.current && mark) {
      const hidden = mark.getBoundingClientRect().right + MARGIN - frame.current.getBoundingClientRect().right;
      frame.current.scrollLeft += Math.max(0, hidden);
    }
  }, []);
  return (
    <section ref={frame} class="scroll-frame" aria-label={name} tabIndex={0}>
      {children}
    </section>
  );
}
