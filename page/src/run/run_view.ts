/** One run that is looked at: its tokens, and the layers of its contribution graph as they arrive. */

import { type ReadonlySignal, type Signal, signal } from "@preact/signals";
import {
  ContributionGraph,
  type GraphParameters,
  LayerShares,
  type ModelInfo,
  NotSupportedError,
  type RemoteTransparentLlm,
  type Tensor,
} from "transparent-llm/web";
import { editsOf } from "../compare/edits.js";
import type { EditSpec, RunRecipe } from "../recipe/recipe.js";
import { upwards } from "../shown/layers.js";

/** What a run begins with. */
export type RunInput =
  | { readonly sentence: string; readonly edits: readonly EditSpec[] }
  | { readonly tokens: readonly number[]; readonly edits: readonly EditSpec[] };

/** A run on the server, and what came of it so far. Every read of the page is one of its client's. */
export class RunView {
  readonly llm: RemoteTransparentLlm;
  readonly model: ModelInfo;
  readonly tokenIds: readonly number[];
  /** The text of each token. */
  readonly tokens: readonly string[];
  readonly edits: readonly EditSpec[];
  /** From the lowest layer up, as far as they have arrived. */
  readonly layers: ReadonlySignal<readonly LayerShares[]>;
  /** Why there is no graph of further layers; undefined if nothing stands against it. */
  readonly refusal: ReadonlySignal<NotSupportedError | undefined>;
  readonly #layers: Signal<readonly LayerShares[]> = signal([]);
  readonly #refusal: Signal<NotSupportedError | undefined> = signal(undefined);

  private constructor(
    llm: RemoteTransparentLlm,
    model: ModelInfo,
    tokens: readonly string[],
    edits: readonly EditSpec[],
  ) {
    this.llm = llm;
    this.model = model;
    this.tokens = tokens;
    this.tokenIds = idsOf(llm.tokens());
    this.edits = edits;
    this.layers = this.#layers;
    this.refusal = this.#refusal;
  }

  /**
   * Run on the server. The client becomes the view's own.
   *
   * @param source what edits that patch take from.
   */
  static async begin(
    llm: RemoteTransparentLlm,
    input: RunInput,
    signal: AbortSignal,
    source?: RunView,
  ): Promise<RunView> {
    const options = { signal, edits: editsOf(input.edits, source?.llm) };
    if ("sentence" in input) {
      await llm.run([input.sentence], options);
    } else {
      await llm.runTokens([input.tokens], options);
    }
    return RunView.of(llm, signal, input.edits);
  }

  /** Of what a client has run. It becomes the view's own. */
  static async of(llm: RemoteTransparentLlm, signal: AbortSignal, edits: readonly EditSpec[] = []): Promise<RunView> {
    const [model, tokens] = await Promise.all([
      llm.modelInfo({ signal }),
      llm.tokensToStrings(idsOf(llm.tokens()), { signal }),
    ]);
    return new RunView(llm, model, tokens, edits);
  }

  get nTokens(): number {
    return this.tokens.length;
  }

  get isEdited(): boolean {
    return this.edits.length > 0;
  }

  /** The sentence, as far as the texts of single tokens say it. */
  sentence({ prependsBos }: { readonly prependsBos: boolean }): string {
    return this.tokens.slice(prependsBos ? 1 : 0).join("");
  }

  /** What a link to share says of it. */
  get recipe(): RunRecipe {
    return { tokens: this.tokenIds, edits: this.edits };
  }

  /** The paths to a position, of the layers that have arrived; undefined before the first one. */
  graph(how: GraphParameters, start: number): ContributionGraph | undefined {
    const layers = this.layers.value;
    const edges = layers.map((layer) => layer.edges(how));
    return layers.length === 0 ? undefined : new ContributionGraph(edges, this.nTokens, how).paths([start]);
  }

  /**
   * Bring the layers of the graph that are not there yet, the lowest first; `onLayer` is told how many are there. A layer
   * that has none, such as one without heads or with an edited pattern, is the end of it, and says why in `refusal`.
   */
  async paint(signal: AbortSignal, onLayer: (count: number) => void): Promise<void> {
    const read = (layer: number): Promise<LayerShares> => this.#layer(layer, signal);
    try {
      for await (const layer of upwards(this.model.nLayers, read, this.#layers.value.length)) {
        this.#layers.value = [...this.#layers.value, layer];
        onLayer(this.#layers.value.length);
      }
    } catch (error) {
      if (!(error instanceof NotSupportedError)) {
        throw error;
      }
      this.#refusal.value = error;
    }
  }

  async #layer(layer: number, signal: AbortSignal): Promise<LayerShares> {
    const [shares, edges] = await Promise.all([
      this.llm.attnContributions(0, layer, { signal, dtype: "F32" }),
      this.llm.contributionEdges(0, layer, { signal, dtype: "F32" }),
    ]);
    return LayerShares.of(shares, edges, this.nTokens);
  }
}

function idsOf(tokens: Tensor): number[] {
  return Array.from(tokens.data as BigInt64Array, Number);
}
