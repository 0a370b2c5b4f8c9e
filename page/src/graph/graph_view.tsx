/** The contribution graph: look, zoom and move, open what is clicked. By pointer, by touch and by keyboard. */

import { select } from "d3-selection";
import { type ZoomBehavior, type ZoomTransform, zoom, zoomIdentity } from "d3-zoom";
import type { JSX } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { usePage } from "../page_state.js";
import type { RunView } from "../run/run_view.js";
import { visible } from "../shown/token_text.js";
import { DrawnGraph, type Hit } from "./drawn_graph.js";
import { EdgeTable } from "./edge_table.js";
import { describe } from "./graph_words.js";
import { moved } from "./keys.js";
import { BOTTOM, LEFT, type Marks, paint } from "./painter.js";
import { type GraphNode, isSame, type Selection } from "./selection.js";

const HEIGHT = 620;
const ZOOM_STEP = 1.3;
const LEAST_ZOOM = 0.08;
const MOST_ZOOM = 4;

/** Of a run that is shown. */
export function GraphView({ run }: { readonly run: RunView }): JSX.Element {
  const page = usePage();
  const canvas = useRef<HTMLCanvasElement>(null);
  const [view, setView] = useState<ZoomTransform>(zoomIdentity);
  const [hovered, setHovered] = useState<{ readonly hit: Hit; readonly x: number; readonly y: number }>();
  const [focus, setFocus] = useState<GraphNode>();
  const [size, setSize] = useState({ width: 0, height: HEIGHT });
  const graph = page.graph.value;
  const { nTokens, model } = run;
  const drawn = useMemo(() => new DrawnGraph(graph, nTokens, model.nLayers), [graph, nTokens, model.nLayers]);
  const zoomer = useZoom(canvas, drawn, size, setView);
  useSize(canvas, setSize);
  const marks: Marks = {
    start: page.start.value,
    chosen: [...page.pins.value, ...(page.selection.value ? [page.selection.value] : [])],
    hovered: hovered?.hit.what === "start" ? undefined : hovered?.hit,
    focus,
  };
  usePainting(canvas, drawn, run.tokens, view, marks, size);

  const hitAt = (event: MouseEvent): Hit | undefined => {
    if (event.offsetX < LEFT || event.offsetY > size.height - BOTTOM) {
      return undefined;
    }
    const [x, y] = view.invert([event.offsetX, event.offsetY]);
    return drawn.at(x, y, view.k);
  };
  const open = (hit: Hit | undefined): void => {
    if (hit?.what === "start") {
      page.start.value = hit.pos;
    } else if (hit !== undefined) {
      page.select(hit);
    }
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.altKey || event.ctrlKey || event.metaKey) {
      return;
    }
    const at = focus ?? { kind: "I", layer: model.nLayers - 1, pos: nTokens - 1 };
    const next = moved(event.key, at, drawn);
    if (next !== undefined) {
      setFocus(next);
      zoomer.reveal(next);
    } else if (event.key === "Enter" || event.key === " ") {
      open({ what: "node", node: at });
    } else if (event.key === "s") {
      page.start.value = at.pos;
    } else if (event.key === "p") {
      page.togglePin({ what: "node", node: at });
    } else if (event.key === "+" || event.key === "=") {
      zoomer.by(ZOOM_STEP);
    } else if (event.key === "-") {
      zoomer.by(1 / ZOOM_STEP);
    } else if (event.key === "0") {
      zoomer.fit();
    } else {
      return;
    }
    event.preventDefault();
  };
  const said = focus === undefined ? "" : describe({ what: "node", node: focus }, run.tokens, drawn);
  return (
    <section class="graph" aria-label="Contribution graph">
      <div class="toolbar">
        <button type="button" onClick={() => zoomer.by(ZOOM_STEP)} aria-label="Zoom in">
          +
        </button>
        <button type="button" onClick={() => zoomer.by(1 / ZOOM_STEP)} aria-label="Zoom out">
          −
        </button>
        <button type="button" onClick={() => zoomer.fit()}>
          Fit
        </button>
        <span class="quiet" data-edges={drawn.edges.length}>
          {drawn.edges.length} edges to “{visible(run.tokens.at(page.start.value) ?? "")}”
        </span>
      </div>
      <div class="canvas-frame">
        <div
          class="canvas-keys"
          role="application"
          tabIndex={0}
          aria-label="Contribution graph. Arrow keys move between nodes, Enter opens one, s shows the paths to its token, p pins it, plus and minus zoom."
          aria-describedby="graph-said"
          onKeyDown={onKeyDown}
          onBlur={() => setFocus(undefined)}
        >
          <canvas
            ref={canvas}
            data-view={`${view.x},${view.y},${view.k}`}
            data-layers={graph === undefined ? 0 : run.layers.value.length}
            style={{ height: `${HEIGHT}px` }}
            onPointerMove={(event) => {
              const hit = hitAt(event);
              setHovered(hit && { hit, x: event.offsetX, y: event.offsetY });
            }}
            onPointerLeave={() => setHovered(undefined)}
            onClick={(event) => open(hitAt(event))}
          />
        </div>
        {hovered !== undefined && (
          <div class="tip" style={{ left: `${hovered.x + 12}px`, top: `${hovered.y + 12}px` }}>
            {describe(hovered.hit, run.tokens, drawn)}
          </div>
        )}
      </div>
      <p id="graph-said" class="quiet" aria-live="polite">
        {said || "Click a node, an edge or a triangle; drag to move, Ctrl and the wheel (or two fingers) to zoom."}
      </p>
      <EdgeTable
        drawn={drawn}
        tokens={run.tokens}
        onOpen={open}
        isChosen={(it) => isChosen(it, page.selection.value)}
      />
    </section>
  );
}

function isChosen(selection: Selection, chosen: Selection | undefined): boolean {
  return isSame(selection, chosen);
}

interface Zoomer {
  by(factor: number): void;
  fit(): void;
  /** Move as far as a node needs to be seen. */
  reveal(node: GraphNode): void;
}

/** Zoom and pan, as the hands of people expect it; the page itself scrolls by the wheel. */
function useZoom(
  canvas: { current: HTMLCanvasElement | null },
  drawn: DrawnGraph,
  size: { readonly width: number; readonly height: number },
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
    const k = Math.min(1.2, (width - LEFT) / layout.width, (height - BOTTOM) / layout.height);
    const readable = Math.max(k, 0.35);
    return zoomIdentity.translate(LEFT, Math.max(0, height - BOTTOM - layout.height * readable)).scale(readable);
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
  }, [layout.nTokens, layout.nLayers, width]);
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

/** The width that the layout gives to the canvas. */
function useSize(
  canvas: { current: HTMLCanvasElement | null },
  onSize: (size: { width: number; height: number }) => void,
): void {
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
function usePainting(
  canvas: { current: HTMLCanvasElement | null },
  drawn: DrawnGraph,
  tokens: readonly string[],
  view: ZoomTransform,
  marks: Marks,
  size: { readonly width: number },
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
