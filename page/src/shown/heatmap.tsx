/** Numbers as coloured cells between labels: read by pointer, by touch and by the arrow keys. */

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { diverging, sequential } from "./scale.js";

const SMALLEST = 12;
const LARGEST = 30;
/** What a map should not be higher than, as its frame is in heatmap's style. */
const MOST_HEIGHT = 600;
const LONGEST_LABEL = 14;
const GAP = 6;
const FONT = "12px ui-monospace, 'DejaVu Sans Mono', monospace";

/** A cell. */
export interface Cell {
  readonly row: number;
  readonly column: number;
}

/** What a heatmap shows. */
export interface HeatmapProps {
  /** What it is of, for screen readers and above it. */
  readonly title: string;
  readonly rows: readonly string[];
  readonly columns: readonly string[];
  /** NaN: there is no such cell. */
  readonly value: (row: number, column: number) => number;
  /** "share": from 0 to 1, or to `most`. "signed": around 0. */
  readonly kind?: "share" | "signed" | undefined;
  /** The value of the strongest colour. Default: 1, or of signed ones the largest. */
  readonly most?: number | undefined;
  /** A cell in words. Default: row, column and value. */
  readonly words?: ((cell: Cell, value: number) => string) | undefined;
  readonly onChoose?: ((cell: Cell) => void) | undefined;
}

export function Heatmap(props: HeatmapProps): JSX.Element {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [cell, setCell] = useState<Cell>();
  const [room, setRoom] = useState(0);
  const { title, rows, columns } = props;
  const last = { row: rows.length - 1, column: columns.length - 1 };
  const grid = room > 0 && canvas.current !== null ? new Grid(canvas.current, props, room) : undefined;
  useRoom(canvas, setRoom);
  useEffect(() => {
    grid?.draw(cell);
  });
  const cellAt = (event: MouseEvent): Cell | undefined => grid?.at(event.offsetX, event.offsetY);
  const onKeyDown = (event: KeyboardEvent): void => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    const isOfBrowser = event.altKey || event.ctrlKey || event.metaKey;
    if (event.key === "Enter" && cell !== undefined) {
      props.onChoose?.(cell);
    } else if (step !== undefined && !isOfBrowser) {
      event.preventDefault();
      const from = cell ?? last;
      const [down = 0, right = 0] = step;
      const to = { row: within(from.row + down, last.row), column: within(from.column + right, last.column) };
      setCell(to);
      grid?.reveal(to);
    }
  };
  return (
    <figure class="heatmap">
      <figcaption>{title}</figcaption>
      <div class="heatmap-frame">
        <div
          role="application"
          tabIndex={0}
          aria-label={`${title}. Arrow keys move between cells.`}
          onKeyDown={onKeyDown}
        >
          <canvas
            ref={canvas}
            data-title={title}
            onPointerMove={(event) => setCell(cellAt(event) ?? cell)}
            onPointerDown={(event) => setCell(cellAt(event) ?? cell)}
            onClick={(event) => {
              const at = cellAt(event);
              if (at !== undefined) {
                props.onChoose?.(at);
              }
            }}
          />
        </div>
      </div>
      <output aria-live="polite">
        {cell === undefined ? "Point at a cell, or move with the arrow keys." : words(cell)}
      </output>
    </figure>
  );

  function words(at: Cell): string {
    const value = props.value(at.row, at.column);
    if (props.words !== undefined) {
      return props.words(at, value);
    }
    const shown = Number.isNaN(value) ? "nothing" : value.toFixed(4);
    return `${rows[at.row]} (${at.row}), ${columns[at.column]} (${at.column}): ${shown}`;
  }
}

/** Where cells are on a canvas, and their colours. */
class Grid {
  readonly #canvas: HTMLCanvasElement;
  readonly #pen: CanvasRenderingContext2D;
  readonly #props: HeatmapProps;
  readonly #left: number;
  readonly #top: number;
  readonly #size: number;

  constructor(canvas: HTMLCanvasElement, props: HeatmapProps, room: number) {
    this.#canvas = canvas;
    this.#pen = canvas.getContext("2d") as CanvasRenderingContext2D;
    this.#props = props;
    this.#left = this.#widest(props.rows) + GAP;
    this.#top = this.#widest(props.columns) + GAP;
    const across = Math.floor((room - this.#left) / Math.max(1, props.columns.length));
    const down = Math.floor((MOST_HEIGHT - this.#top) / Math.max(1, props.rows.length));
    this.#size = Math.min(LARGEST, Math.max(SMALLEST, Math.min(across, down)));
  }

  at(x: number, y: number): Cell | undefined {
    const [column, row] = [Math.floor((x - this.#left) / this.#size), Math.floor((y - this.#top) / this.#size)];
    const { rows, columns } = this.#props;
    return row >= 0 && column >= 0 && row < rows.length && column < columns.length ? { row, column } : undefined;
  }

  /** Scroll the frame as far as the cell needs to be seen. */
  reveal({ row, column }: Cell): void {
    const frame = this.#canvas.closest(".heatmap-frame") as HTMLElement;
    const [x, y] = [this.#left + column * this.#size, this.#top + row * this.#size];
    frame.scrollLeft = Math.min(x, Math.max(frame.scrollLeft, x + this.#size - frame.clientWidth));
    frame.scrollTop = Math.min(y, Math.max(frame.scrollTop, y + this.#size - frame.clientHeight));
  }

  draw(cell: Cell | undefined): void {
    const { rows, columns } = this.#props;
    this.#resize(this.#left + columns.length * this.#size, this.#top + rows.length * this.#size);
    this.#cells();
    this.#labels(cell);
    if (cell !== undefined) {
      const pen = this.#pen;
      pen.strokeStyle = getComputedStyle(this.#canvas).color;
      pen.lineWidth = 2;
      const [x, y] = [this.#left + cell.column * this.#size, this.#top + cell.row * this.#size];
      pen.strokeRect(x + 1, y + 1, this.#size - 3, this.#size - 3);
    }
  }

  /** In pixels of the page; the canvas has those of the screen. */
  #resize(width: number, height: number): void {
    [this.#canvas.width, this.#canvas.height] = [width * devicePixelRatio, height * devicePixelRatio];
    [this.#canvas.style.width, this.#canvas.style.height] = [`${width}px`, `${height}px`];
    this.#canvas.dataset["cells"] = [this.#left, this.#top, this.#size].join(",");
    this.#pen.scale(devicePixelRatio, devicePixelRatio);
    this.#pen.font = FONT;
  }

  #cells(): void {
    const { rows, columns, value, kind = "share" } = this.#props;
    const most = this.#props.most ?? (kind === "share" ? 1 : this.#largest());
    for (let row = 0; row < rows.length; row++) {
      for (let column = 0; column < columns.length; column++) {
        const of = value(row, column);
        if (!Number.isNaN(of)) {
          this.#pen.fillStyle = kind === "share" ? sequential(of / most) : diverging(of, most);
          const [x, y] = [this.#left + column * this.#size, this.#top + row * this.#size];
          this.#pen.fillRect(x, y, this.#size - 1, this.#size - 1);
        }
      }
    }
  }

  #largest(): number {
    const { rows, columns, value } = this.#props;
    let most = 0;
    for (let row = 0; row < rows.length; row++) {
      for (let column = 0; column < columns.length; column++) {
        most = Math.max(most, Math.abs(value(row, column)) || 0);
      }
    }
    return most;
  }

  #labels(cell: Cell | undefined): void {
    const pen = this.#pen;
    const style = getComputedStyle(this.#canvas);
    const quiet = style.getPropertyValue("--quiet");
    pen.textBaseline = "middle";
    this.#props.rows.forEach((label, row) => {
      pen.fillStyle = cell?.row === row ? style.color : quiet;
      pen.textAlign = "right";
      pen.fillText(cut(label), this.#left - GAP / 2, this.#top + (row + 0.5) * this.#size);
    });
    this.#props.columns.forEach((label, column) => {
      pen.fillStyle = cell?.column === column ? style.color : quiet;
      pen.save();
      pen.translate(this.#left + (column + 0.5) * this.#size, this.#top - GAP / 2);
      pen.rotate(-Math.PI / 2);
      pen.textAlign = "left";
      pen.fillText(cut(label), 0, 0);
      pen.restore();
    });
  }

  #widest(labels: readonly string[]): number {
    this.#pen.font = FONT;
    return Math.ceil(labels.reduce((most, label) => Math.max(most, this.#pen.measureText(cut(label)).width), 0));
  }
}

/** The width that the frame around a canvas has. */
function useRoom(canvas: { current: HTMLCanvasElement | null }, onRoom: (room: number) => void): void {
  useEffect(() => {
    const frame = canvas.current?.closest(".heatmap-frame") as HTMLElement;
    const observer = new ResizeObserver(() => onRoom(frame.clientWidth));
    observer.observe(frame);
    return () => observer.disconnect();
  }, [canvas, onRoom]);
}

function cut(label: string): string {
  return label.length > LONGEST_LABEL ? `${label.slice(0, LONGEST_LABEL - 1)}…` : label;
}

function within(index: number, last: number): number {
  return Math.min(last, Math.max(0, index));
}
