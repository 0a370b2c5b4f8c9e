/** Tables and maps of the details as they stand on the page, and logits to compare them with. */

import type { Locator } from "playwright-core";
import { expect } from "vitest";
import { Tensor } from "../../../clients/typescript/src/node.js";

/** A row of a table of tokens, as it stands on the page. */
export interface ShownRow {
  readonly id: number;
  readonly score: number;
  readonly probability: number;
  readonly gain: string;
}

/** The rows of a table, as soon as it is of these tokens. */
export async function rowsOf(card: Locator, part: string, table: string, ids: readonly number[]): Promise<ShownRow[]> {
  const rows = card.locator(`[data-part="${part}"] [data-table="${table}"] tbody tr`);
  const shown = (): Promise<number[]> =>
    rows.evaluateAll((all) => all.map((row) => Number((row as HTMLElement).dataset["token"])));
  await expect.poll(shown, { timeout: 15_000 }).toEqual(ids);
  return rows.evaluateAll((all) =>
    all.map((row) => {
      const text = (name: string): string => row.querySelector(`[data-${name}]`)?.textContent ?? "";
      const id = Number((row as HTMLElement).dataset["token"]);
      return { id, score: Number(text("score")), probability: Number(text("probability")), gain: text("gain") };
    }),
  );
}

/** Both tables of a part against all logits. */
export async function expectSpoken(card: Locator, part: string, logits: Float64Array): Promise<void> {
  const falling = best(logits);
  const promoted = await rowsOf(card, part, "promoted", falling.slice(0, 15));
  const suppressed = await rowsOf(card, part, "suppressed", falling.slice(-15).reverse());
  for (const { id, score } of [...promoted, ...suppressed]) {
    expect(Math.abs(score - (logits[id] as number))).toBeLessThan(0.002);
  }
}

/** Token ids, the one with the largest logit first. */
export function best(logits: Float64Array): number[] {
  return Array.from(logits.keys()).sort((a, b) => (logits[b] as number) - (logits[a] as number));
}

export function rankIn(logits: Float64Array, id: number): number {
  return logits.filter((logit) => logit > (logits[id] as number)).length + 1;
}

/** The vector at one position of a tensor [1 pos d_model]. */
export function vectorAt(tensor: Tensor, pos: number): Tensor {
  const [, , dModel] = tensor.shape as [number, number, number];
  return Tensor.ofFloats(tensor.toFloat32().subarray(pos * dModel, (pos + 1) * dModel));
}

/** What a map says of a cell. */
export interface ShownCell {
  readonly row: number;
  readonly column: number;
  /** NaN: nothing. */
  readonly value: number;
}

/** The cell under the keyboard in a map, after the keys. */
export async function cellAfter(card: Locator, title: string, ...keys: string[]): Promise<ShownCell> {
  const map = card.locator("figure").filter({ hasText: title });
  await map.waitFor();
  for (const key of keys) {
    await map.locator("[role=application]").press(key);
  }
  const said = await map.locator("output").innerText();
  const [, row, column, value] = /^\((\d+)\).* from \((\d+)\).*: (nothing|[\d.]+)$/.exec(said) ?? [];
  return { row: Number(row), column: Number(column), value: Number(value) };
}
