/** The attention pattern of a head, as squares between the tokens. */

import type { Tensor } from "transparent-llm/web";
import { visible } from "./token_text.js";

const SMALLEST_SQUARE = 16;
const LARGEST_SQUARE = 34;
const LONGEST_LABEL = 14;
const LABEL_FONT = "13px ui-monospace, 'DejaVu Sans Mono', monospace";
const GAP = 8;

interface Place {
  readonly query: number;
  readonly key: number;
}

/** Draws on one canvas; tells the weight under the pointer or the cursor. */
export class AttentionView {
  readonly #canvas: HTMLCanvasElement;
  readonly #output: HTMLOutputElement;
  #pattern: Tensor | undefined;
  #tokens: readonly string[] = [];
  #place: Place | undefined;
  #square = SMALLEST_SQUARE;
  #margin = 0;

  constructor(canvas: HTMLCanvasElement, output: HTMLOutputElement) {
    this.#canvas = canvas;
    this.#output = output;
    for (const kind of ["pointermove", "pointerdown"] as const) {
      // A tap of a finger does not move.
      canvas.addEventListener(kind, (event) => this.#choose(this.#placeAt(event.offsetX, event.offsetY)));
    }
    canvas.addEventListener("keydown", (event) => this.#move(event));
    new ResizeObserver(() => this.#draw()).observe(canvas.parentElement as HTMLElement);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
  }

  /** Show a pattern [query_pos key_pos] of these tokens. */
  show(pattern: Tensor, tokens: readonly string[], title: string): void {
    this.#pattern = pattern;
    this.#tokens = tokens.map((token) => visible(token).slice(0, LONGEST_LABEL));
    this.#canvas.setAttribute("aria-label", title);
    this.#place = undefined;
    this.#output.value = "Point at a square, tap it, or move with the arrow keys.";
    this.#draw();
  }

  #draw(): void {
    const pen = this.#canvas.getContext("2d");
    const count = this.#tokens.length;
    if (pen === null || this.#pattern === undefined || count === 0) {
      return;
    }
    pen.font = LABEL_FONT;
    this.#margin = Math.ceil(Math.max(...this.#tokens.map((token) => pen.measureText(token).width))) + GAP;
    const room = (this.#canvas.parentElement as HTMLElement).clientWidth - this.#margin;
    this.#square = Math.min(LARGEST_SQUARE, Math.max(SMALLEST_SQUARE, Math.floor(room / count)));
    this.#resize(this.#margin + this.#square * count);
    const style = getComputedStyle(this.#canvas);
    this.#drawSquares(pen, style);
    this.#drawLabels(pen, style);
  }

  /** In pixels of the page; the canvas has those of the screen. */
  #resize(size: number): void {
    const pen = this.#canvas.getContext("2d") as CanvasRenderingContext2D;
    this.#canvas.width = this.#canvas.height = size * devicePixelRatio;
    this.#canvas.style.width = this.#canvas.style.height = `${size}px`;
    pen.scale(devicePixelRatio, devicePixelRatio);
    pen.font = LABEL_FONT;
  }

  #drawSquares(pen: CanvasRenderingContext2D, style: CSSStyleDeclaration): void {
    const heat = style.getPropertyValue("--heat");
    this.#tokens.forEach((_, query) => {
      this.#tokens.forEach((_token, key) => {
        const weight = this.#weight({ query, key });
        pen.fillStyle = `rgba(${heat}, ${0.05 + 0.95 * weight})`;
        pen.fillRect(
          this.#margin + key * this.#square,
          this.#margin + query * this.#square,
          this.#square - 1,
          this.#square - 1,
        );
      });
    });
    if (this.#place !== undefined) {
      const { query, key } = this.#place;
      pen.strokeStyle = style.color;
      pen.lineWidth = 2;
      const size = this.#square - 3;
      pen.strokeRect(this.#margin + key * this.#square + 1, this.#margin + query * this.#square + 1, size, size);
    }
  }

  #drawLabels(pen: CanvasRenderingContext2D, style: CSSStyleDeclaration): void {
    pen.textBaseline = "middle";
    this.#tokens.forEach((token, i) => {
      const middle = this.#margin + (i + 0.5) * this.#square;
      pen.fillStyle = this.#place?.query === i ? style.color : style.getPropertyValue("--quiet");
      pen.textAlign = "right";
      pen.fillText(token, this.#margin - GAP / 2, middle);
      pen.fillStyle = this.#place?.key === i ? style.color : style.getPropertyValue("--quiet");
      pen.save();
      pen.translate(middle, this.#margin - GAP / 2);
      pen.rotate(-Math.PI / 2);
      pen.textAlign = "left";
      pen.fillText(token, 0, 0);
      pen.restore();
    });
  }

  #placeAt(x: number, y: number): Place | undefined {
    const [key, query] = [x, y].map((each) => Math.floor((each - this.#margin) / this.#square)) as [number, number];
    const isInside = [key, query].every((index) => index >= 0 && index < this.#tokens.length);
    return isInside ? { query, key } : undefined;
  }

  #move(event: KeyboardEvent): void {
    const [down, right] =
      { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [];
    const isOfBrowser = event.altKey || event.ctrlKey || event.metaKey; // as Alt and an arrow, which goes back
    if (down === undefined || right === undefined || isOfBrowser) {
      return;
    }
    event.preventDefault();
    const last = this.#tokens.length - 1;
    const { query, key } = this.#place ?? { query: last, key: last };
    const within = (index: number): number => Math.min(last, Math.max(0, index));
    const place = { query: within(query + down), key: within(key + right) };
    this.#choose(place);
    this.#reveal(place);
  }

  /** Scroll as far as the square needs to be seen: the keys that move would have scrolled. */
  #reveal({ query, key }: Place): void {
    const frame = this.#canvas.parentElement as HTMLElement;
    const [{ left, top }, { left: from, right: to }] = [
      this.#canvas.getBoundingClientRect(),
      frame.getBoundingClientRect(),
    ];
    const [x, y] = [left + this.#margin + key * this.#square, top + this.#margin + query * this.#square];
    frame.scrollLeft += beyond(x, x + this.#square, from, to);
    scrollBy(0, beyond(y, y + this.#square, 0, innerHeight));
  }

  #choose(place: Place | undefined): void {
    if (place === undefined || (place.query === this.#place?.query && place.key === this.#place.key)) {
      return;
    }
    this.#place = place;
    const [from, to] = [this.#tokens[place.query], this.#tokens[place.key]];
    this.#output.value = `${from} (${place.query}) looks at ${to} (${place.key}): ${this.#weight(place).toFixed(4)}`;
    this.#draw();
  }

  #weight({ query, key }: Place): number {
    return (this.#pattern as Tensor).at(query, key);
  }
}

/** How far a span is outside of a frame: below 0 before it, above 0 after it. */
function beyond(start: number, end: number, from: number, to: number): number {
  return start < from ? start - from : Math.max(0, end - to);
}
