/** One run that is looked at: its tokens, and the layers of its contribution graph as they arrive. */

import { computed, type ReadonlySignal, type Signal, signal } from "@preact/signals";
import {
  ContributionGraph,
  type GraphEdge,
  type GraphParameters,
  type LayerEdges,
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

/** What is known of a layer: its shares, or why it has none that could be shown. */
type Layer = LayerShares | NotSupportedError;

/** A run on the server, and what came of it so far. Every read of the page is one of its client's. */
export class RunView {
  readonly llm: RemoteTransparentLlm;
  readonly model: ModelInfo;
  readonly tokenIds: readonly number[];
  /** The text of each token. */
  readonly tokens: readonly string[];
  readonly edits: readonly EditSpec[];
  /** From the lowest layer up, as far as they have arrived; or why one shows no paths. */
  readonly layers: ReadonlySignal<readonly Layer[]>;
  /** Why layers that have arrived show no paths, such as one without heads or with an edited pattern. */
  readonly gaps: ReadonlySignal<ReadonlyMap<number, NotSupportedError>>;
  readonly #layers: Signal<readonly Layer[]> = signal([]);

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
    this.gaps = computed(() => gapsOf(this.#layers.value));
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

  /**
   * The paths to a position, of the layers that have arrived; undefined before the first one that has any. They go past
   * `gaps` at their own positions, by edges that stand for nothing that was measured.
   */
  graph(how: GraphParameters, start: number): ContributionGraph | undefined {
    if (this.#layers.value.length === this.gaps.value.size) {
      return undefined;
    }
    return this.#graph(how, this.#layers.value).paths([start]);
  }

  /** The edges on the paths to a position, where some layers more are taken for gaps; those past gaps left out. */
  edges(how: GraphParameters, start: number, gaps: ReadonlyMap<number, NotSupportedError>): GraphEdge[] {
    const layers = this.#layers.value.map((shares, layer) => gaps.get(layer) ?? shares);
    const edges = this.#graph(how, layers).paths([start]).edges();
    return edges.filter(({ layer }) => layers[layer] instanceof LayerShares);
  }

  #graph(how: GraphParameters, layers: readonly Layer[]): ContributionGraph {
    const edges = layers.map((layer) => (layer instanceof LayerShares ? layer.edges(how) : passing(this.nTokens)));
    return new ContributionGraph(edges, this.nTokens, how);
  }

  /** Bring the layers of the graph that are not there yet, the lowest first; `onLayer` is told how many are there. */
  async paint(signal: AbortSignal, onLayer: (count: number) => void): Promise<void> {
    const read = (layer: number): Promise<Layer> => this.#layer(layer, signal);
    for await (const layer of upwards(this.model.nLayers, read, this.#layers.value.length)) {
      this.#layers.value = [...this.#layers.value, layer];
      onLayer(this.#layers.value.length);
    }
  }

  async #layer(layer: number, signal: AbortSignal): Promise<Layer> {
    try {
      const [shares, edges] = await Promise.all([
        this.llm.attnContributions(0, layer, { signal, dtype: "F32" }),
        this.llm.contributionEdges(0, layer, { signal, dtype: "F32" }),
      ]);
      return LayerShares.of(shares, edges, this.nTokens);
    } catch (error) {
      if (error instanceof NotSupportedError) {
        return error;
      }
      throw error;
    }
  }
}

function gapsOf(layers: readonly Layer[]): ReadonlyMap<number, NotSupportedError> {
  const found = new Map<number, NotSupportedError>();
  for (const [layer, shares] of layers.entries()) {
    if (shares instanceof NotSupportedError) {
      found.set(layer, shares);
    }
  }
  return found;
}

/** Each position from below to above, and nothing else. */
function passing(n: number): LayerEdges {
  const [none, all] = [new Float32Array(n), new Float32Array(n).fill(1)];
  return { attention: new Float32Array(n * n), attentionResidual: all, ffn: none, ffnResidual: all };
}

function idsOf(tokens: Tensor): number[] {
  return Array.from(tokens.data as BigInt64Array, Number);
}
