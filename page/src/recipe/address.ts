/** The address bar: it has the recipe of what is shown. */

import type { RunView } from "../run/run_view.js";
import { fragmentOf, isPatch, type Recipe } from "./recipe.js";

/** What is looked at, what it is compared with, and what edits take from. */
export interface SharedRuns {
  readonly run: RunView;
  readonly other: RunView | undefined;
  readonly source: RunView | undefined;
}

/** Write it there; what was pushed is left by the browser's own way back. */
export function share(model: string, { run, other, source }: SharedRuns, how: "push" | "replace"): void {
  const isNeeded = source !== undefined && [...run.edits, ...(other?.edits ?? [])].some(isPatch);
  const recipe: Recipe = {
    model,
    run: run.recipe,
    ...(other && { other: other.recipe }),
    ...(isNeeded && { source: source.recipe }),
  };
  const fragment = fragmentOf(recipe);
  if (how === "replace" || location.hash === "") {
    history.replaceState(null, "", fragment);
  } else if (fragment !== location.hash) {
    history.pushState(null, "", fragment);
  }
}
