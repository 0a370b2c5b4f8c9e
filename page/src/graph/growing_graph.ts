/** The contribution graph of a text that the model goes on with: a column for each token, drawn as the tokens come. */

import { type ReadonlySignal, type Signal, signal } from "@preact/signals";
import {
  ContributionGraph,
  type GraphParameters,
  type LayerEdges,
  type NextToken,
  type RemoteTransparentLlm,
  type Tensor,
} from "transparent-llm/web";
import { isStopped } from "../shown/advice.js";

/** What has been read: of a causal model no later token adds an edge into one of these columns. */
export interface Columns {
  /** The text of each. */
  readonly tokens: readonly string[];
  /** Edges of all layers into all of them. */
  readonly layers: readonly LayerEdges[];
  /** Which edges count. */
  readonly how: GraphParameters;
}

/**
 * Of one generation. The steps of a generation hold none of the values that the graph is computed of, so the text so far is
 * run beside it, whenever the columns before have been read: on a slow server a few tokens come together.
 */
export class GrowingGraph {
  /** New tokens so far. The model has read all of them but the last. */
  readonly written: ReadonlySignal<readonly NextToken[]>;
  /** Those of the prompt come first, all at once. */
  readonly columns: ReadonlySignal<Columns | undefined>;
  /** Why there are no further columns; the text goes on without. */
  readonly error: ReadonlySignal<unknown>;
  readonly #llm: RemoteTransparentLlm;
  readonly #sentence: string;
  readonly #how: () => GraphParameters;
  readonly #written: Signal<readonly NextToken[]> = signal([]);
  readonly #columns: Signal<Columns | undefined> = signal(undefined);
  readonly #error: Signal<unknown> = signal(undefined);
  #isEnded = false;
  #wake: () => void = () => {};

  /**
   * @param llm becomes its own.
   * @param how which edges count, as it is when they are read.
   */
  constructor(llm: RemoteTransparentLlm, sentence: string, how: () => GraphParameters) {
    [this.#llm, this.#sentence, this.#how] = [llm, sentence, how];
    [this.written, this.columns, this.error] = [this.#written, this.#columns, this.#error];
  }

  /** All new tokens, each with the text that it has by itself. */
  get text(): string {
    return this.#written.value.map(({ text }) => text).join("");
  }

  /** A token has come. */
  add(token: NextToken | undefined): void {
    if (token !== undefined) {
      this.#written.value = [...this.#written.value, token];
      this.#wake();
    }
  }

  /** No further token comes. */
  end(): void {
    this.#isEnded = true;
    this.#wake();
  }

  /** Read columns until all are there that the model has read for the text. What goes wrong is told in `error`. */
  async grow(signal: AbortSignal): Promise<void> {
    try {
      await this.#llm.run([this.#sentence], { signal });
      const prompt = Array.from(this.#llm.tokens().data, Number);
      const strings = await this.#llm.tokensToStrings(prompt, { signal });
      await this.#read(strings, signal);
      for (;;) {
        const added = this.#written.value.slice(0, -1);
        const nColumns = prompt.length + added.length;
        if (nColumns > this.#current) {
          const before = this.#llm.copy();
          await this.#llm.runTokens([[...prompt, ...added.map(({ tokenId }) => tokenId)]], { signal });
          if (before.runId !== this.#llm.runId && before.tokens().shape[1] !== prompt.length) {
            await before.release({ signal }); // a part of the text is of no use to anybody when the next one is there
          }
          await this.#read([...strings, ...added.map(({ text }) => text)], signal);
        } else if (this.#isEnded) {
          return;
        } else {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
        }
      }
    } catch (error) {
      this.#error.value = isStopped(error) ? undefined : error;
    }
  }

  /** How many columns are there with the edges that count by now. */
  get #current(): number {
    const [columns, how] = [this.#columns.value, this.#how()];
    const isCurrent = columns?.how.threshold === how.threshold && columns.how.renormalize === how.renormalize;
    return isCurrent ? columns.tokens.length : 0;
  }

  /** Of the current run, the columns that are not there. */
  async #read(tokens: readonly string[], signal: AbortSignal): Promise<void> {
    const { nLayers } = await this.#llm.modelInfo({ signal });
    const [how, before, first] = [this.#how(), this.#columns.value, this.#current];
    const targets = Array.from({ length: tokens.length - first }, (_, i) => first + i);
    const layers = Array.from({ length: nLayers }, (_, layer) => layer);
    const came = await this.#llm.fetchParts(
      layers.map((layer) => ["contributionEdgesTo", 0, layer, { ...how, targets }] as const),
      { signal, dtype: "F32" },
    );
    const all = came.map((parts, layer) => grown(first > 0 ? before?.layers[layer] : undefined, parts));
    this.#columns.value = { tokens, layers: all, how };
  }
}

/** The paths to a position, of the columns that are there; a negative position counts from the newest. */
export function pathsOf({ tokens, layers, how }: Columns, start: number): ContributionGraph {
  return new ContributionGraph(layers, tokens.length, how).paths([Math.min(start, tokens.length - 1)]);
}

/** The edges of a layer with those into further positions, which are the last of the row. */
export function grown(before: LayerEdges | undefined, came: ReadonlyMap<string, Tensor>): LayerEdges {
  const of = (name: string): Tensor => came.get(name) as Tensor;
  const [, n] = of("attention").shape as [number, number];
  const nBefore = before?.ffn.length ?? 0;
  const attention = new Float32Array(n * n);
  for (let target = 0; target < nBefore; target++) {
    attention.set((before as LayerEdges).attention.subarray(target * nBefore, (target + 1) * nBefore), target * n);
  }
  attention.set(of("attention").toFloat32(), nBefore * n);
  const longer = (part: "attentionResidual" | "ffn" | "ffnResidual", name: string): Float32Array =>
    Float32Array.from([...(before?.[part] ?? []), ...of(name).toFloat32()]);
  return {
    attention,
    attentionResidual: longer("attentionResidual", "attention_residual"),
    ffn: longer("ffn", "ffn"),
    ffnResidual: longer("ffnResidual", "ffn_residual"),
  };
}
