/** Two runs beside each other: which positions of one belong to which of the other. */

import { nodeName, nodeOf } from "../graph/selection.js";
import type { RunView } from "../run/run_view.js";
import { visible } from "../shown/token_text.js";

/** Which ends of rows of different lengths are laid on each other. */
export type AlignedBy = "first" | "last";

/** Positions of two rows, from the end by which they are aligned as far as both go. */
export class Alignment {
  /** How many positions have a partner. */
  readonly count: number;
  /** What comes before the first pair, in the one row and in the other. */
  readonly offsets: readonly [first: number, second: number];

  constructor(nFirst: number, nSecond: number, by: AlignedBy) {
    this.count = Math.min(nFirst, nSecond);
    this.offsets = by === "first" ? [0, 0] : [nFirst - this.count, nSecond - this.count];
  }

  /** The position in the second row of one in the first; undefined if it has no partner. */
  secondOf(pos: number): number | undefined {
    const at = pos - this.offsets[0];
    return at >= 0 && at < this.count ? at + this.offsets[1] : undefined;
  }

  /** A node of the graph of the first (0) or second (1) run by the pair that it is at; undefined if it has no partner. */
  aligned(name: string, side: 0 | 1): string | undefined {
    const node = nodeOf(name);
    const pos = node.pos - this.offsets[side];
    return pos >= 0 && pos < this.count ? nodeName({ ...node, pos }) : undefined;
  }
}

/** What the page shows, and what it is compared with. Changes are those from the first to the second. */
export class Pair {
  readonly alignment: Alignment;

  constructor(
    readonly first: RunView,
    readonly second: RunView,
    readonly by: AlignedBy,
  ) {
    this.alignment = new Alignment(first.nTokens, second.nTokens, by);
  }

  /** What the two are called. */
  get names(): readonly [first: string, second: string] {
    if (this.first.edits.length > 0) {
      return this.second.edits.length > 0 ? ["First run", "Second run"] : ["Edited", "Unedited"];
    }
    return this.second.edits.length > 0 ? ["Unedited", "Edited"] : ["This sentence", "Other sentence"];
  }

  get isOfOneLength(): boolean {
    return this.first.nTokens === this.second.nTokens;
  }

  /** The tokens of each pair of positions: one where they are the same. */
  get labels(): string[] {
    return Array.from({ length: this.alignment.count }, (_, i) => {
      const [a = "", b = ""] = [
        this.first.tokens[i + this.alignment.offsets[0]],
        this.second.tokens[i + this.alignment.offsets[1]],
      ];
      return a === b ? visible(a) : `${visible(a, 10)}|${visible(b, 10)}`;
    });
  }
}

/** A change with its sign, and an arrow that says it too. */
export function changeWords(change: number, digits = 4): string {
  const rounded = change.toFixed(digits);
  if (Number(rounded) === 0) {
    return `= ${(0).toFixed(digits)}`;
  }
  return change > 0 ? `▲ +${rounded}` : `▼ −${rounded.slice(1)}`;
}
