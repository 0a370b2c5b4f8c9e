/** The canvas of the graph: its size, and when it is drawn. */

import type { ZoomTransform } from "d3-zoom";
import { useEffect, useRef } from "preact/hooks";
import type { DrawnGraph } from "./drawn_graph.js";
import { type Marks, paint } from "./painter.js";

/** Of the canvas, in pixels of the page. */
export interface Size {
  readonly width: number;
  readonly height: number;
}

/** The width that the layout gives to the canvas. */
export function useSize(canvas: { current: HTMLCanvasElement | null }, onSize: (size: Size) => void): void {
  useEffect(() => {
    const element = canvas.current as HTMLCanvasElement;
    const observer = new ResizeObserver(() => {
      const { clientWidth: width, clientHeight: height } = element;
      [element.width, element.height] = [width * devicePixelRatio, height * devicePixelRatio];
      onSize({ width, height });
    });
    observer.observe(element);
    return () => observer.disconnect();
  }, [canvas, onSize]);
}

/** Drawn once for each frame of the screen, however often something changes. */
export function usePainting(
  canvas: { current: HTMLCanvasElement | null },
  drawn: DrawnGraph,
  tokens: readonly string[],
  view: ZoomTransform,
  marks: Marks,
  size: Size,
): void {
  const latest = useRef<() => void>();
  const frame = useRef(0);
  latest.current = () => {
    if (canvas.current !== null && size.width > 0) {
      paint(canvas.current, drawn, tokens, view, marks);
    }
  };
  useEffect(() => {
    cancelAnimationFrame(frame.current);
    frame.current = requestAnimationFrame(() => latest.current?.());
  });
  useEffect(() => {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const again = (): void => latest.current?.();
    dark.addEventListener("change", again);
    return () => dark.removeEventListener("change", again);
  }, []);
}
