/** Zoom and pan of the graph. */

import { select } from "d3-selection";
import { type ZoomBehavior, type ZoomTransform, zoom, zoomIdentity } from "d3-zoom";
import { useEffect, useRef } from "preact/hooks";
import type { Size } from "./canvas.js";
import type { DrawnGraph } from "./drawn_graph.js";
import { COLUMN, type Layout } from "./layout.js";
import { BOTTOM, LEFT } from "./painter.js";
import type { GraphNode } from "./selection.js";

export const LEAST_HEIGHT = 280;
const MOST_HEIGHT = 640;
const LEAST_ZOOM = 0.08;
const MOST_ZOOM = 4;
/** Room for a square that stands beside its column. */
const RIGHT = 8;

export interface Zoomer {
  by(factor: number): void;
  fit(): void;
  /** Move as far as a node needs to be seen. */
  reveal(node: GraphNode): void;
}

/**
 * Zoom and pan, as the hands of people expect it; the page itself scrolls by the wheel.
 *
 * @param start the position where the paths end: it is in sight where a row is too long for all of it.
 */
export function useZoom(
  canvas: { current: HTMLCanvasElement | null },
  drawn: DrawnGraph,
  size: Size,
  start: number,
  onView: (view: ZoomTransform) => void,
): Zoomer {
  const behaviour = useRef<ZoomBehavior<HTMLCanvasElement, unknown>>();
  const { layout } = drawn;
  const { width, height } = size;
  useEffect(() => {
    const made = zoom<HTMLCanvasElement, unknown>()
      .scaleExtent([LEAST_ZOOM, MOST_ZOOM])
      .filter((event: Event) => event.type !== "wheel" || (event as WheelEvent).ctrlKey)
      .clickDistance(4)
      .on("zoom", ({ transform }: { transform: ZoomTransform }) => onView(transform));
    behaviour.current = made;
    const selection = select(canvas.current as HTMLCanvasElement);
    selection.call(made).on("dblclick.zoom", null);
    return () => {
      selection.on(".zoom", null);
    };
  }, [canvas, onView]);
  const fitted = (): ZoomTransform => {
    const k = Math.max(0.35, Math.min(fittingZoom(layout, width), (height - BOTTOM) / layout.height));
    const rest = width - LEFT - RIGHT - layout.width * k; // below 0: the end of the paths is in sight, not the first token
    const x = LEFT + Math.min(0, Math.max(rest, width - LEFT - RIGHT - (layout.column(start) + COLUMN) * k));
    return zoomIdentity.translate(x, Math.max(0, (height - BOTTOM - layout.height * k) / 2)).scale(k);
  };
  const to = (transform: ZoomTransform): void => {
    const made = behaviour.current;
    if (made !== undefined && canvas.current !== null) {
      made.transform(select(canvas.current), transform);
    }
  };
  useEffect(() => {
    if (width > 0) {
      to(fitted());
    }
  }, [layout.nTokens, layout.nLayers, width, height]);
  const now = (): ZoomTransform => {
    const [x, y, k] = (canvas.current?.dataset["view"] ?? "0,0,1").split(",").map(Number);
    return zoomIdentity.translate(x as number, y as number).scale(k as number);
  };
  return {
    by: (factor) => {
      if (canvas.current !== null) {
        behaviour.current?.scaleBy(select(canvas.current), factor);
      }
    },
    fit: () => to(fitted()),
    reveal: (node) => {
      const view = now();
      const [x, y] = view.apply([...layout.place(node)]);
      const dx = outside(x, LEFT + 20, width - 20);
      const dy = outside(y, 20, height - BOTTOM - 20);
      if (dx !== 0 || dy !== 0) {
        to(zoomIdentity.translate(view.x - dx, view.y - dy).scale(view.k));
      }
    },
  };
}

/** How far a number is below the first of two, negative, or above the second. */
function outside(at: number, from: number, to: number): number {
  return at < from ? at - from : Math.max(0, at - to);
}

/** The zoom at which a graph fits into a width, and can still be read. */
function fittingZoom(layout: Layout, width: number): number {
  return Math.max(0.35, Math.min(1.2, (width - LEFT - RIGHT) / layout.width));
}

/** The height that a graph needs at that zoom, within bounds. */
export function heightFor(layout: Layout, width: number): number {
  const wanted = layout.height * fittingZoom(layout, width) + BOTTOM;
  return Math.round(Math.min(MOST_HEIGHT, Math.max(LEAST_HEIGHT, wanted)));
}
