/** Cells of a heatmap, for the pointer. */

import type { Page } from "playwright-core";

/** Click the cell of the heatmap whose title begins so. */
export async function clickCell(page: Page, title: string, row: number, column: number): Promise<void> {
  const canvas = page.locator(`.heatmap canvas[data-title^="${title}"][data-cells]`);
  const place = (await canvas.getAttribute("data-cells")) as string;
  const [left, top, size] = place.split(",").map(Number) as [number, number, number];
  await canvas.click({ position: { x: left + (column + 0.5) * size, y: top + (row + 0.5) * size } });
}

/** What a heatmap says of the cell that is pointed at. */
export async function cellWords(page: Page, title: string): Promise<string> {
  const heatmap = page.locator(".heatmap", { has: page.locator(`canvas[data-title^="${title}"]`) });
  return (await heatmap.locator("output").textContent()) ?? "";
}
