/** How a text goes on in the model and in the model with edits, and how far apart the two are at each token. */

import { type ReadonlySignal, type Signal, signal } from "@preact/signals";
import type { Edit } from "transparent-llm/interventions";
import type { NextToken, RemoteTransparentLlm } from "transparent-llm/web";
import type { EditSpec, RunRecipe } from "../recipe/recipe.js";
import type { RunView } from "../run/run_view.js";
import { together } from "../shown/together.js";
import { editsOf } from "./edits.js";

/** How tokens are chosen, in both texts. */
export interface ContinuationSettings {
  /** Of each text. */
  readonly maxNewTokens: number;
  /** 0: the likeliest token each time. */
  readonly temperature: number;
  /** Of what is drawn. */
  readonly seed: number;
}

/** What one of the two models writes, as it comes. */
export interface Continuation {
  /** One for each step; `logprob` is that of the model which wrote them. */
  readonly tokens: ReadonlySignal<readonly NextToken[]>;
  /**
   * KL(edited || plain) of the distribution that each of these tokens was taken from, in nats: both models have read the
   * prompt and the tokens before it, whoever wrote them. Undefined until the text is whole, and both have read it.
   */
  readonly kl: ReadonlySignal<readonly number[] | undefined>;
}

/** The plain and the edited continuation of the tokens of one run. */
export class Continuations {
  readonly plain: Continuation;
  readonly edited: Continuation;
  readonly #plain = new Writing();
  readonly #edited = new Writing();

  constructor(
    readonly prompt: RunView,
    readonly edits: readonly EditSpec[],
    readonly settings: ContinuationSettings,
  ) {
    [this.plain, this.edited] = [this.#plain, this.#edited];
  }

  /**
   * Four runs: the two texts, both at once, and then each read by the other model.
   *
   * @param source what edits that patch take from.
   * @param onStep is called with each token that has come, of either text.
   */
  async write(source: RemoteTransparentLlm | undefined, signal: AbortSignal, onStep: () => void): Promise<void> {
    const edits = editsOf(this.edits, source);
    const [plain, edited] = await together(
      signal,
      (stop) => this.#goOn(this.#plain, [], stop, onStep),
      (stop) => this.#goOn(this.#edited, edits, stop, onStep),
    );
    await together(
      signal,
      async (stop) => this.#plain.compared(await readBy(edits, plain, stop), plain, stop),
      async (stop) => this.#edited.compared(edited, await readBy([], edited, stop), stop),
    );
  }

  /** How far both have come, in words and as a share. */
  get progress(): { readonly words: string; readonly share: number } {
    const [plain, edited, most] = [
      this.plain.tokens.value.length,
      this.edited.tokens.value.length,
      this.settings.maxNewTokens,
    ];
    return { words: `Tokens ${plain} and ${edited} of ${most}`, share: (plain + edited) / (2 * most) };
  }

  /** What a link says of the run of one of the two texts: all of its tokens but the last, which no model has read. */
  recipe(side: "plain" | "edited"): RunRecipe {
    const added = this[side].tokens.value.slice(0, -1).map(({ tokenId }) => tokenId);
    return { tokens: [...this.prompt.tokenIds, ...added], edits: side === "plain" ? [] : this.edits };
  }

  async #goOn(
    writing: Writing,
    edits: readonly Edit[],
    signal: AbortSignal,
    onStep: () => void,
  ): Promise<RemoteTransparentLlm> {
    const own = this.prompt.llm.copy();
    const append = ([token]: readonly (NextToken | undefined)[]): void => {
      writing.append(token);
      onStep();
    };
    await own.generateTokens([this.prompt.tokenIds], { ...this.settings, edits, signal, onStep: append });
    return own;
  }
}

/** The first step whose tokens differ; or, of whole texts, that one of them does not have. Undefined: there is none so far. */
export function partsAt(
  plain: readonly number[],
  edited: readonly number[],
  { areWhole }: { readonly areWhole: boolean },
): number | undefined {
  const shared = Math.min(plain.length, edited.length);
  const step = plain.slice(0, shared).findIndex((id, i) => id !== edited[i]);
  if (step >= 0) {
    return step;
  }
  return areWhole && plain.length !== edited.length ? shared : undefined;
}

class Writing implements Continuation {
  readonly tokens: Signal<readonly NextToken[]> = signal([]);
  readonly kl: Signal<readonly number[] | undefined> = signal(undefined);

  append(token: NextToken | undefined): void {
    this.tokens.value = token === undefined ? this.tokens.value : [...this.tokens.value, token];
  }

  /** Of two objects whose current runs have read all of the text but its last token. */
  async compared(edited: RemoteTransparentLlm, plain: RemoteTransparentLlm, signal: AbortSignal): Promise<void> {
    const fromPos = (plain.tokens().shape[1] as number) - this.tokens.value.length;
    const [row] = await edited.compare(plain, { fromPos, signal });
    this.kl.value = row?.klByPos;
  }
}

/** The tokens of a run, read with other edits. */
async function readBy(
  edits: readonly Edit[],
  llm: RemoteTransparentLlm,
  signal: AbortSignal,
): Promise<RemoteTransparentLlm> {
  const own = llm.copy();
  await own.runTokens([Array.from(llm.tokens().data, Number)], { edits, signal });
  return own;
}
