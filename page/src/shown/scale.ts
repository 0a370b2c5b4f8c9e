/** Colours of numbers, which people tell apart who see fewer colours, and the colour of text on them. */

import { interpolatePuOr, interpolateViridis } from "d3-scale-chromatic";

/** Of a share from 0 to 1: dark is none, bright is all. */
export function sequential(share: number): string {
  return interpolateViridis(within(share));
}

/** Of a signed value whose largest size is `most`: orange is below 0, purple above, white is none. */
export function diverging(value: number, most: number): string {
  return interpolatePuOr(within(0.5 + (most > 0 ? value / most / 2 : 0)));
}

/** Black or white, whichever can be read on a colour "rgb(…)" or "#rrggbb". */
export function textOn(colour: string): string {
  const [r = 0, g = 0, b = 0] = channels(colour);
  return 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#000" : "#fff";
}

function within(share: number): number {
  return Math.min(1, Math.max(0, Number.isFinite(share) ? share : 0));
}

function channels(colour: string): number[] {
  const hex = /^#(..)(..)(..)$/.exec(colour);
  if (hex !== null) {
    return hex.slice(1).map((pair) => Number.parseInt(pair, 16));
  }
  return (colour.match(/[\d.]+/g) ?? []).map(Number);
}
