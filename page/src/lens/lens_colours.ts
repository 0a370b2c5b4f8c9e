/** What the colour of a cell of the lens says. */

import { sequential } from "../shown/scale.js";
import type { LensCell } from "./lens_layer.js";

export const COLOURED_BY = ["probability", "entropy", "kl", "rank"] as const;
export type ColouredBy = (typeof COLOURED_BY)[number];

export const COLOUR_NAMES: Readonly<Record<ColouredBy, string>> = {
  probability: "probability of the top token",
  entropy: "entropy",
  kl: "KL to the output",
  rank: "rank of the chosen token",
};

/** The colour of a cell, on a scale that all layers share; undefined where it has no such value. */
export function colourOf(cell: LensCell, by: ColouredBy, vocabulary: number): string | undefined {
  const most = Math.log(vocabulary);
  switch (by) {
    case "probability":
      return sequential(cell.top[0]?.probability ?? 0);
    case "entropy":
      return sequential(cell.entropy / most);
    case "kl":
      return Number.isNaN(cell.kl) ? undefined : sequential(cell.kl / most);
    case "rank":
      return cell.chosen && sequential(1 - Math.log(cell.chosen.rank + 1) / most);
  }
}

/** The ends of the scale, in words. */
export function legendOf(by: ColouredBy, vocabulary: number): string {
  const nats = `${Math.log(vocabulary).toFixed(1)} nats, the logarithm of the vocabulary, or more`;
  switch (by) {
    case "probability":
      return "Dark: 0. Bright: 1.";
    case "entropy":
    case "kl":
      return `Dark: 0. Bright: ${nats}.`;
    case "rank":
      return `Bright: rank 1, the most likely. Dark: rank ${vocabulary}, the least; by their logarithms.`;
  }
}

/** The value that colours a cell, as the cell shows it. */
export function valueWords(cell: LensCell, by: ColouredBy): string {
  switch (by) {
    case "probability":
      return percent(cell.top[0]?.probability ?? 0);
    case "entropy":
      return cell.entropy.toFixed(2);
    case "kl":
      return cell.kl.toFixed(2);
    case "rank":
      return cell.chosen === undefined ? "–" : `#${cell.chosen.rank + 1}`;
  }
}

export function percent(share: number): string {
  return `${(100 * share).toFixed(1)}%`;
}
