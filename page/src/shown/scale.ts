/** Colours of numbers, which people tell apart who see fewer colours, and the colour of text on them. */

import { interpolatePuOr, interpolateViridis } from "d3-scale-chromatic";

/** The luminance whose contrast to black is that to white: (L + 0.05) / 0.05 = 1.05 / (L + 0.05). */
const EQUAL_CONTRAST = Math.sqrt(1.05 * 0.05) - 0.05;

/** Of a share from 0 to 1: dark is none, bright is all. */
export function sequential(share: number): string {
  return interpolateViridis(within(share));
}

/** Of a signed value whose largest size is `most`: orange is below 0, purple above, white is none. */
export function diverging(value: number, most: number): string {
  return interpolatePuOr(within(0.5 - (most > 0 ? value / most / 2 : 0)));
}

/** Black or white, whichever is in the stronger contrast to a colour "rgb(…)" or "#rrggbb". */
export function textOn(colour: string): string {
  const [r = 0, g = 0, b = 0] = channels(colour).map(linear);
  const luminance = 0.2126 * r + 0.7152 * g + 0.0722 * b;
  return luminance > EQUAL_CONTRAST ? "#000" : "#fff";
}

/** The light of a channel from 0 to 255, as sRGB and the contrast of WCAG define it. */
function linear(channel: number): number {
  const share = channel / 255;
  return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
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
