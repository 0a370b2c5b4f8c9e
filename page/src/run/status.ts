/** What the page is at. */

import type { RunView } from "./run_view.js";

export type Status =
  | { readonly kind: "idle" | "done"; readonly words: string }
  | { readonly kind: "busy"; readonly words: string; readonly share?: number }
  | { readonly kind: "failed"; readonly words: string; readonly error: unknown };

/** That a run is there, after so much time. */
export function done({ model, nTokens }: RunView, ms: number): Status {
  const tokens = `${nTokens} ${nTokens === 1 ? "token" : "tokens"}`;
  const words = `${model.name}: ${tokens}, ${model.nLayers} layers of ${model.nHeads} heads, in ${(ms / 1000).toFixed(1)} s.`;
  return { kind: "done", words };
}
