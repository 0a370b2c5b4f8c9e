/** The contribution graph: look, zoom and move, open what is clicked. By pointer, by touch and by keyboard. */

import { type ZoomTransform, zoomIdentity } from "d3-zoom";
import type { JSX } from "preact";
import { useMemo, useRef, useState } from "preact/hooks";
import type { ContributionGraph } from "transparent-llm/web";
import { usePage } from "../page_state.js";
import { visible } from "../shown/token_text.js";
import { type Size, usePainting, useSize } from "./canvas.js";
import { DrawnGraph, type Hit } from "./drawn_graph.js";
import { EdgeTable } from "./edge_table.js";
import { describe } from "./graph_words.js";
import { moved } from "./keys.js";
import { BOTTOM, LEFT, type Marks } from "./painter.js";
import { type GraphNode, isSame, type Selection } from "./selection.js";
import { heightFor, LEAST_HEIGHT, useZoom } from "./zooming.js";

const ZOOM_STEP = 1.3;

/** What is drawn. */
interface Drawing {
  /** One for each column. */
  readonly tokens: readonly string[];
  readonly nLayers: number;
  /** Of the layers that have arrived; undefined before the first. */
  readonly graph: ContributionGraph | undefined;
  /** Layers that show no paths. */
  readonly gaps?: ReadonlyMap<number, unknown>;
  /** Whether there are details of nodes and edges. */
  readonly isOpenable: boolean;
}

export function GraphView({ tokens, nLayers, graph, gaps, isOpenable }: Drawing): JSX.Element {
  const page = usePage();
  const canvas = useRef<HTMLCanvasElement>(null);
  const [view, setView] = useState<ZoomTransform>(zoomIdentity);
  const [hovered, setHovered] = useState<{ readonly hit: Hit; readonly x: number; readonly y: number }>();
  const [focus, setFocus] = useState<GraphNode>();
  const [size, setSize] = useState({ width: 0, height: LEAST_HEIGHT });
  const nTokens = tokens.length;
  const drawn = useMemo(() => new DrawnGraph(graph, nTokens, nLayers, gaps), [graph, nTokens, nLayers, gaps]);
  const zoomer = useZoom(
    canvas,
    drawn,
    size,
    page.start.value < 0 ? nTokens + page.start.value : page.start.value,
    setView,
  );
  useSize(canvas, setSize);
  const marks: Marks = {
    start: page.start.value,
    chosen: isOpenable ? [...page.pins.value, ...(page.selection.value ? [page.selection.value] : [])] : [],
    hovered: hovered?.hit.what === "start" ? undefined : hovered?.hit,
    focus,
  };
  usePainting(canvas, drawn, tokens, view, marks, size);

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
    } else if (hit !== undefined && isOpenable) {
      page.select(hit);
    }
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.altKey || event.ctrlKey || event.metaKey) {
      return;
    }
    const at = focus ?? { kind: "I", layer: nLayers - 1, pos: nTokens - 1 };
    const next = moved(event.key, at, drawn);
    if (next !== undefined) {
      setFocus(next);
      zoomer.reveal(next);
    } else if (event.key === "Enter" || event.key === " ") {
      open({ what: "node", node: at });
    } else if (event.key === "s") {
      page.start.value = at.pos;
    } else if (event.key === "p" && isOpenable) {
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
  const said = focus === undefined ? "" : describe({ what: "node", node: focus }, tokens, drawn);
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
          {drawn.edges.length} edges to “{visible(tokens.at(page.start.value) ?? "")}”
        </span>
      </div>
      <div class="canvas-frame">
        <div
          class="canvas-keys"
          role="application"
          tabIndex={0}
          aria-label={`Contribution graph. Arrow keys move between nodes, ${isOpenable ? "Enter opens one, p pins it, " : ""}s shows the paths to its token, plus and minus zoom.`}
          aria-describedby="graph-said"
          onKeyDown={onKeyDown}
          onBlur={() => setFocus(undefined)}
        >
          <canvas
            ref={canvas}
            data-view={`${view.x},${view.y},${view.k}`}
            data-layers={graph?.nLayers ?? 0}
            style={{ height: `${heightFor(drawn.layout, size.width)}px` }}
            onPointerMove={(event) => {
              const hit = hitAt(event);
              setHovered(hit && { hit, x: event.offsetX, y: event.offsetY });
            }}
            onPointerLeave={() => setHovered(undefined)}
            onClick={(event) => open(hitAt(event))}
          />
        </div>
        {hovered !== undefined && (
          <div class="tip" style={tipPlace(hovered, size)}>
            {describe(hovered.hit, tokens, drawn)}
          </div>
        )}
      </div>
      <p id="graph-said" class="quiet" aria-live="polite">
        {said ||
          `Click ${isOpenable ? "a node, an edge or " : ""}a triangle; drag to move, Ctrl and the wheel (or two fingers) to zoom.`}
      </p>
      {isOpenable && (
        <EdgeTable drawn={drawn} tokens={tokens} onOpen={open} isChosen={(it) => isChosen(it, page.selection.value)} />
      )}
    </section>
  );
}

/** Beside the pointer, on the side that has room. */
function tipPlace({ x, y }: { readonly x: number; readonly y: number }, size: Size): JSX.CSSProperties {
  const across = x > size.width / 2 ? { right: `${size.width - x + 12}px` } : { left: `${x + 12}px` };
  const down = y > size.height / 2 ? { bottom: `${size.height - y + 12}px` } : { top: `${y + 12}px` };
  return { ...across, ...down };
}

function isChosen(selection: Selection, chosen: Selection | undefined): boolean {
  return isSame(selection, chosen);
}
