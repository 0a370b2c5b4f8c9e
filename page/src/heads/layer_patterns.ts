/** How all heads of a layer attend, as numbers. */

import type { Tensor } from "transparent-llm/web";
import type { RunView } from "../run/run_view.js";

/** What is shown of each head. */
export type PatternKind = "attention" | "norms";

export const PATTERN_NAMES: Readonly<Record<PatternKind, string>> = {
  attention: "attention",
  norms: "value-weighted norms",
};

/** One layer, read in one call. */
export class LayerPatterns {
  readonly layer: number;
  readonly kind: PatternKind;
  /** The value of the strongest colour, for all heads the same. */
  readonly most: number;
  /** [head query key] */
  readonly #values: Float32Array;
  readonly #nTokens: number;

  private constructor(layer: number, kind: PatternKind, tensor: Tensor) {
    this.layer = layer;
    this.kind = kind;
    this.#values = tensor.toFloat32();
    this.#nTokens = tensor.shape[1] as number;
    this.most = kind === "attention" ? 1 : this.#values.reduce((most, value) => Math.max(most, value), 0);
  }

  static async read(run: RunView, layer: number, kind: PatternKind, signal: AbortSignal): Promise<LayerPatterns> {
    const options = { dtype: "F32", signal } as const;
    const tensor = await (kind === "attention"
      ? run.llm.attentionMatrices(0, layer, options)
      : run.llm.valueWeightedNorms(0, layer, options));
    return new LayerPatterns(layer, kind, tensor);
  }

  /** What `query` takes from `key`; NaN of a key that comes later. */
  at(head: number, query: number, key: number): number {
    return key > query ? Number.NaN : (this.#values[(head * this.#nTokens + query) * this.#nTokens + key] as number);
  }
}
