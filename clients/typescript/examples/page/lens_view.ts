/** The table of the logit lens: a row for each layer, the last one above; a column for each position. */

import type { Guess } from "./session.js";
import { visible } from "./token_text.js";

/** Fills one table, cell by cell. */
export class LensView {
  readonly #table: HTMLTableElement;
  #cells: HTMLTableCellElement[][] = [];

  constructor(table: HTMLTableElement) {
    this.#table = table;
  }

  /** An empty table for these tokens. */
  clear(tokens: readonly string[], nLayers: number): void {
    this.#table.replaceChildren();
    this.#cells = [];
    const head = this.#table.createTHead().insertRow();
    head.append(heading("col", "after"), ...tokens.map((token) => heading("col", visible(token))));
    const body = this.#table.createTBody();
    for (let layer = nLayers - 1; layer >= 0; layer--) {
      const row = body.insertRow();
      row.append(heading("row", `layer ${layer}`));
      this.#cells[layer] = tokens.map(() => row.insertCell());
    }
  }

  show({ layer, pos, token, probability }: Guess): void {
    const cell = this.#cells[layer]?.[pos];
    if (cell === undefined) {
      return;
    }
    const share = document.createElement("small");
    share.textContent = `${(probability * 100).toFixed(1)} %`;
    cell.replaceChildren(visible(token), share);
    cell.style.setProperty("--probability", probability.toFixed(3));
  }
}

function heading(scope: "col" | "row", text: string): HTMLTableCellElement {
  const cell = document.createElement("th");
  cell.scope = scope;
  cell.textContent = text;
  return cell;
}
