/** Draws a graph on a canvas: what of it is in sight, and the tokens and layers at its borders. */

import { visible } from "../shown/token_text.js";
import type { DrawnGraph, PlacedEdge } from "./drawn_graph.js";
import { BAND, COLUMN, RADIUS, TOP } from "./layout.js";
import { type GraphNode, nodeName, type Selection } from "./selection.js";

/** Where tokens and layers are written. */
export const LEFT = 62;
export const BOTTOM = 84;
const SHADES = 6;
const WIDEST = 4;

/** A place of the graph on the screen: x and y of its origin, and the zoom. */
export interface View {
  readonly x: number;
  readonly y: number;
  readonly k: number;
}

/** What is marked. */
export interface Marks {
  readonly start: number;
  readonly chosen: readonly Selection[];
  readonly hovered: Selection | undefined;
  /** Where the keyboard is. */
  readonly focus: GraphNode | undefined;
}

/** Draw it all anew: what is out of sight costs nothing. */
export function paint(
  canvas: HTMLCanvasElement,
  drawn: DrawnGraph,
  tokens: readonly string[],
  view: View,
  marks: Marks,
): void {
  const pen = canvas.getContext("2d");
  if (pen === null) {
    return;
  }
  const painter = new Painter(pen, drawn, tokens, view, canvas.clientWidth, canvas.clientHeight, colours(canvas));
  pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
  painter.paint(marks);
}

interface Colours {
  readonly paper: string;
  readonly ink: string;
  readonly quiet: string;
  readonly stripe: string;
  readonly attention: string;
  readonly ffn: string;
  readonly chosen: string;
}

function colours(canvas: HTMLElement): Colours {
  const style = getComputedStyle(canvas);
  const of = (name: string): string => style.getPropertyValue(`--${name}`).trim();
  return {
    ...{ paper: of("paper"), ink: of("ink"), quiet: of("quiet"), stripe: of("stripe") },
    ...{ attention: of("attention"), ffn: of("ffn"), chosen: of("chosen") },
  };
}

class Painter {
  constructor(
    readonly pen: CanvasRenderingContext2D,
    readonly drawn: DrawnGraph,
    readonly tokens: readonly string[],
    readonly view: View,
    readonly width: number,
    readonly height: number,
    readonly colours: Colours,
  ) {}

  paint(marks: Marks): void {
    const { pen, view } = this;
    pen.clearRect(0, 0, this.width, this.height);
    pen.save();
    pen.beginPath();
    pen.rect(LEFT, 0, this.width - LEFT, this.height - BOTTOM);
    pen.clip();
    this.#stripes();
    pen.translate(view.x, view.y);
    pen.scale(view.k, view.k);
    this.#passages();
    this.#edges();
    this.#starts(marks.start);
    this.#nodes();
    this.#marks(marks);
    pen.restore();
    this.#layerLabels();
    this.#tokenLabels(marks.start);
  }

  /** The first and the last layer of which something is in sight. */
  #layers(): [number, number] {
    const { layout } = this.drawn;
    const layerAt = (y: number): number =>
      layout.nLayers - 1 - Math.floor(((y - this.view.y) / this.view.k - TOP) / BAND);
    return [Math.max(0, layerAt(this.height - BOTTOM) - 1), Math.min(layout.nLayers - 1, layerAt(0))];
  }

  #columns(): [number, number] {
    const posAt = (x: number): number => Math.floor((x - this.view.x) / this.view.k / COLUMN);
    return [Math.max(0, posAt(LEFT)), Math.min(this.drawn.layout.nTokens - 1, posAt(this.width))];
  }

  #stripes(): void {
    const [first, last] = this.#layers();
    this.pen.fillStyle = this.colours.stripe;
    for (let layer = first; layer <= last; layer++) {
      if (layer % 2 === 0) {
        const y = this.view.y + this.drawn.layout.band(layer) * this.view.k;
        this.pen.fillRect(LEFT, y, this.width - LEFT, BAND * this.view.k);
      }
    }
  }

  /** Dashed: they have no weight. */
  #passages(): void {
    const { pen, colours } = this;
    pen.strokeStyle = colours.quiet;
    pen.lineWidth = 1;
    pen.setLineDash([2, 4]);
    pen.beginPath();
    for (const { x1, y1, x2, y2 } of this.drawn.passages) {
      pen.moveTo(x1, y1);
      pen.lineTo(x2, y2);
    }
    pen.stroke();
    pen.setLineDash([]);
  }

  /** In a few shades, each of which is one stroke. */
  #edges(): void {
    const { pen, colours } = this;
    const shades = new Map<string, PlacedEdge[]>();
    for (const placed of this.drawn.edgesBetween(...this.#layers())) {
      if (this.#isInSight(placed)) {
        const { kind, weight } = placed.edge;
        const shade = Math.min(SHADES - 1, Math.floor(Math.sqrt(weight) * SHADES));
        const key = `${kind.startsWith("ffn") ? "f" : "a"}${shade}`;
        const found = shades.get(key);
        if (found === undefined) {
          shades.set(key, [placed]);
        } else {
          found.push(placed);
        }
      }
    }
    for (const [key, edges] of [...shades].sort(([a], [b]) => Number(a.slice(1)) - Number(b.slice(1)))) {
      const share = (Number(key.slice(1)) + 1) / SHADES;
      pen.globalAlpha = 0.25 + 0.75 * share;
      pen.strokeStyle = key.startsWith("f") ? colours.ffn : colours.attention;
      pen.lineWidth = 1 + (WIDEST - 1) * share;
      pen.beginPath();
      for (const { x1, y1, x2, y2 } of edges) {
        pen.moveTo(x1, y1);
        pen.lineTo(x2, y2);
      }
      pen.stroke();
    }
    pen.globalAlpha = 1;
  }

  #isInSight({ x1, x2 }: PlacedEdge): boolean {
    const [from, to] = [(LEFT - this.view.x) / this.view.k, (this.width - this.view.x) / this.view.k];
    return Math.max(x1, x2) >= from && Math.min(x1, x2) <= to;
  }

  #starts(start: number): void {
    const [first, last] = this.#columns();
    const { pen, colours, drawn } = this;
    const chosen = start < 0 ? drawn.layout.nTokens + start : start;
    for (let pos = first; pos <= last; pos++) {
      const [x, y] = drawn.layout.start(pos);
      pen.beginPath();
      pen.moveTo(x, y + 6);
      pen.lineTo(x - 7, y - 6);
      pen.lineTo(x + 7, y - 6);
      pen.closePath();
      pen.fillStyle = pos === chosen ? colours.chosen : colours.stripe;
      pen.strokeStyle = pos === chosen ? colours.chosen : colours.quiet;
      pen.lineWidth = 1;
      pen.fill();
      pen.stroke();
    }
  }

  #nodes(): void {
    const [first, last] = this.#columns();
    const [low, high] = this.#layers();
    for (let pos = first; pos <= last; pos++) {
      this.#node({ kind: "X", layer: 0, pos });
      for (let layer = low; layer <= high; layer++) {
        this.#node({ kind: "A", layer, pos });
        this.#node({ kind: "M", layer, pos });
        this.#node({ kind: "I", layer, pos });
      }
    }
  }

  #node(node: GraphNode): void {
    const { pen, colours, drawn } = this;
    const isActive = drawn.active.has(nodeName(node));
    if (node.kind === "M" && !isActive) {
      return;
    }
    this.#outline(node, isActive ? RADIUS : 2);
    pen.fillStyle = isActive ? (node.kind === "M" ? colours.ffn : colours.paper) : colours.quiet;
    pen.strokeStyle = node.kind === "M" ? colours.ffn : colours.attention;
    pen.lineWidth = 1.5;
    pen.fill();
    if (isActive) {
      pen.stroke();
    }
  }

  #outline(node: GraphNode, radius: number): void {
    const [x, y] = this.drawn.layout.place(node);
    this.pen.beginPath();
    if (node.kind === "M") {
      this.pen.rect(x - radius, y - radius, 2 * radius, 2 * radius);
    } else {
      this.pen.arc(x, y, radius, 0, 2 * Math.PI);
    }
  }

  #marks({ chosen, hovered, focus }: Marks): void {
    const { pen, colours } = this;
    pen.strokeStyle = colours.chosen;
    for (const selection of hovered === undefined ? chosen : [...chosen, hovered]) {
      pen.lineWidth = 3;
      this.#mark(selection);
    }
    if (focus !== undefined) {
      pen.lineWidth = 2;
      pen.setLineDash([3, 2]);
      this.#outline(focus, RADIUS + 4);
      pen.stroke();
      pen.setLineDash([]);
    }
  }

  #mark(selection: Selection): void {
    const { pen, drawn } = this;
    if (selection.what === "node") {
      this.#outline(selection.node, RADIUS + 1);
    } else {
      const [from, to] = [drawn.layout.place(selection.ends.source), drawn.layout.place(selection.ends.target)];
      pen.beginPath();
      pen.moveTo(...from);
      pen.lineTo(...to);
    }
    pen.stroke();
  }

  #layerLabels(): void {
    const { pen, colours, view } = this;
    const [first, last] = this.#layers();
    pen.fillStyle = colours.quiet;
    pen.font = "12px system-ui, sans-serif";
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    const every = Math.ceil(14 / (BAND * view.k));
    for (let layer = first; layer <= last; layer++) {
      const y = view.y + (this.drawn.layout.band(layer) + BAND / 2) * view.k;
      if (layer % every === 0 && y > 0 && y < this.height - BOTTOM) {
        pen.fillText(`layer ${layer}`, LEFT - 8, y);
      }
    }
  }

  #tokenLabels(start: number): void {
    const { pen, colours, view, drawn } = this;
    const [first, last] = this.#columns();
    const chosen = start < 0 ? drawn.layout.nTokens + start : start;
    const every = Math.ceil(16 / (COLUMN * view.k));
    pen.font = "13px ui-monospace, 'DejaVu Sans Mono', monospace";
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (let pos = first; pos <= last; pos++) {
      const x = view.x + drawn.layout.column(pos) * view.k;
      const isNamed = pos === chosen || (pos % every === 0 && Math.abs(pos - chosen) >= every);
      if (isNamed && x >= LEFT) {
        pen.save();
        pen.fillStyle = pos === chosen ? colours.chosen : colours.ink;
        pen.translate(x + 4, this.height - BOTTOM + 12);
        pen.rotate((-40 * Math.PI) / 180);
        pen.fillText(visible(this.tokens[pos] ?? "", 12), 0, 0);
        pen.restore();
      }
    }
  }
}
