/** The state of the page, and what its controls do. */

import { batch, computed, type ReadonlySignal, type Signal, signal } from "@preact/signals";
import { createContext } from "preact";
import { useContext } from "preact/hooks";
import {
  AuthError,
  type ContributionGraph,
  type GenerationStep,
  type GraphParameters,
  UnavailableError,
} from "transparent-llm/web";
import { type ContinuationSettings, Continuations } from "./compare/continuations.js";
import type { AlignedBy } from "./compare/pair.js";
import type { Connection } from "./connection/connection.js";
import { GrowingGraph } from "./graph/growing_graph.js";
import { isSame, type Selection } from "./graph/selection.js";
import { share } from "./recipe/address.js";
import type { EditSpec, Recipe, RunRecipe } from "./recipe/recipe.js";
import { RunView } from "./run/run_view.js";
import { EXAMPLES } from "./run/sentences.js";
import { done, type Status } from "./run/status.js";
import { isStopped } from "./shown/advice.js";
import { together } from "./shown/together.js";

export const TABS = ["graph", "lens", "attribution", "heads", "compare"] as const;
export type Tab = (typeof TABS)[number];

/** What can be compared with what is looked at, or of it. */
type Comparand = "sentence" | "edits" | "continuations";

const DEFAULT_THRESHOLD = 0.04;

/** One for the whole page. Signals are changed here and by its controls. */
export class PageState {
  readonly connection: Connection;
  readonly tab: Signal<Tab> = signal("graph");
  readonly status: Signal<Status> = signal({ kind: "idle", words: "Type a sentence and run it." });
  readonly model = signal("");
  /** What stands in the field for it; it may be another one than that of `run`. */
  readonly sentence: Signal<string> = signal(EXAMPLES[0]);
  /** What is looked at. */
  readonly run: Signal<RunView | undefined> = signal(undefined);
  /** What it is compared with. */
  readonly other: Signal<RunView | undefined> = signal(undefined);
  /** Another sentence that was run without edits: what edits that patch take from. */
  readonly source: Signal<RunView | undefined> = signal(undefined);
  /** Edits of `run` that are being put together. */
  readonly draft: Signal<readonly EditSpec[]> = signal([]);
  /** Which tokens of rows of different lengths belong together. */
  readonly alignedBy: Signal<AlignedBy> = signal("last");
  /** How `run` goes on without edits and with some. */
  readonly continuations: Signal<Continuations | undefined> = signal(undefined);
  /** What of the last comparison could not be run, and why. */
  readonly refused: Signal<{ readonly what: Comparand; readonly error: unknown } | undefined> = signal(undefined);
  readonly threshold = signal(DEFAULT_THRESHOLD);
  readonly renormalize = signal(true);
  /** Whether the final norm is applied before vectors are unembedded. */
  readonly normalize = signal(true);
  /** The position whose prediction's paths are shown; -1 is the last token. */
  readonly start = signal(-1);
  readonly selection: Signal<Selection | undefined> = signal(undefined);
  /** What stays open beside the selection. */
  readonly pins: Signal<readonly Selection[]> = signal([]);
  /** The text of a token that is looked up at every node that is open; empty: none. */
  readonly tokenText = signal("");
  /** The graph of `run` as the controls want it; of the layers that have arrived. */
  readonly graph: ReadonlySignal<ContributionGraph | undefined>;
  /** That of a text which is being written. */
  readonly growing: Signal<GrowingGraph | undefined> = signal(undefined);
  /** The server wants a token, or another one. */
  readonly isTokenWanted = signal(false);
  #stop = new AbortController();
  /** What failed because nobody answered. */
  #unanswered: (() => Promise<void>) | undefined;

  constructor(connection: Connection) {
    this.connection = connection;
    connection.onReturn = () => {
      const again = this.#unanswered;
      this.#unanswered = undefined;
      void again?.().catch(() => {}); // it is shown
    };
    this.graph = computed(() => {
      const run = this.run.value;
      return run?.graph(this.#how, Math.min(this.start.value, run.nTokens - 1));
    });
  }

  /**
   * Ask the server what it serves.
   *
   * @throws TransparentLlmError whatever came in the way; it is shown too.
   */
  async greet(): Promise<void> {
    try {
      const { models } = await this.connection.ask();
      this.model.value ||= models[0]?.name ?? "";
      this.isTokenWanted.value = false;
      this.status.value = { kind: "idle", words: "Type a sentence and run it." };
    } catch (error) {
      this.isTokenWanted.value = error instanceof AuthError;
      this.#failed(error, () => this.greet());
      throw error;
    }
  }

  /** Run the sentence, and show it as soon as it has run. What was shown before stays until then. */
  async runSentence(): Promise<void> {
    const sentence = this.sentence.value;
    await this.#work(async (stop) => {
      const run = await RunView.begin(this.connection.client(this.model.value), { sentence, edits: [] }, stop);
      this.#show(run);
      this.#share("push");
      await this.#paint([run], stop);
    });
  }

  /**
   * Have the model go on with the sentence, word for word as it comes, and show what was read for it.
   *
   * @param isDrawn whether the graph of the text so far is drawn beside it.
   */
  async goOn(count: number, isDrawn: boolean): Promise<void> {
    const sentence = this.sentence.value;
    await this.#work(async (stop) => {
      const client = this.connection.client(this.model.value);
      const growing = new GrowingGraph(client.copy(), sentence, () => this.#how);
      this.growing.value = isDrawn ? growing : undefined;
      this.start.value = -1;
      const onStep = ([token]: GenerationStep): void => {
        growing.add(token);
        const nth = growing.written.value.length;
        this.status.value = { kind: "busy", words: `Token ${nth} of ${count}: …${growing.text}`, share: nth / count };
      };
      await together(
        stop,
        (signal) => client.generate([sentence], { maxNewTokens: count, signal, onStep }).finally(() => growing.end()),
        async (signal) => isDrawn && growing.grow(signal),
      );
      const run = await RunView.of(client, stop);
      this.sentence.value = sentence + growing.text;
      this.#show(run);
      this.#share("push");
      await this.#paint([run], stop);
    });
  }

  /** Run what a link says. */
  async runRecipe({ model, run, other, source }: Recipe): Promise<void> {
    this.model.value = model;
    await this.#work(async (stop) => {
      const client = this.connection.client(model);
      const from = source && (await RunView.begin(client.copy(), source, stop));
      const main = await RunView.begin(client, run, stop, from);
      const second = other && (await RunView.begin(client.copy(), other, stop, from));
      this.#show(main, second, from);
      const served = this.connection.server.value?.models.find(({ name }) => name === main.model.name);
      this.sentence.value = main.sentence(served ?? { prependsBos: false });
      this.#share("replace");
      await this.#paint(second === undefined ? [main] : [main, second], stop);
    });
  }

  /** Run something beside what is shown: another sentence, or the same tokens with edits. */
  async compareWith(input: { readonly sentence: string } | RunRecipe): Promise<void> {
    const main = this.run.value;
    if (main === undefined) {
      return;
    }
    await this.#work(async (stop) => {
      const [what, edits] = "edits" in input ? (["edits", input.edits] as const) : (["sentence", []] as const);
      const begin = () => RunView.begin(main.llm.copy(), { ...input, edits }, stop, this.source.value);
      const second = await this.#refusable(what, begin);
      this.#showOther(second);
      await this.#paint([main, second], stop);
    });
  }

  /** Have the model go on with what is shown without edits and with those of the draft, and compare the two texts. */
  async goOnBoth(settings: ContinuationSettings): Promise<void> {
    const [prompt, edits] = [this.run.value, this.draft.value];
    if (prompt === undefined) {
      return;
    }
    await this.#work(async (stop) => {
      const both = new Continuations(prompt, edits, settings);
      this.continuations.value = both;
      const onStep = (): void => {
        this.status.value = { kind: "busy", ...both.progress };
      };
      await this.#refusable("continuations", () => both.write(this.source.value?.llm, stop, onStep));
    });
  }

  /** Look inside what is compared with, and compare it with what was looked at. */
  swap(): void {
    const [run, other] = [this.run.value, this.other.value];
    if (run !== undefined && other !== undefined) {
      batch(() => {
        this.run.value = other;
        this.other.value = run;
        this.source.value = run.isEdited || other.isEdited ? this.source.value : run;
        this.#lookAnew();
      });
      this.#share("push");
    }
  }

  /** Stop what is under way, here and on the server. What has arrived stays. */
  stop(): void {
    this.#stop.abort();
  }

  /** Open a selection; the same one again closes it. */
  select(selection: Selection): void {
    this.selection.value = isSame(this.selection.value, selection) ? undefined : selection;
  }

  /** Keep a selection open, or let it go. */
  togglePin(selection: Selection): void {
    const others = this.pins.value.filter((pin) => !isSame(pin, selection));
    this.pins.value = others.length < this.pins.value.length ? others : [...others, selection];
  }

  /** What is refused is told where it was asked for. */
  async #refusable<T>(what: Comparand, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      this.refused.value = isStopped(error) ? undefined : { what, error };
      throw error;
    }
  }

  get #how(): GraphParameters {
    return { threshold: this.threshold.value, renormalize: this.renormalize.value };
  }

  #show(run: RunView, other?: RunView, source?: RunView): void {
    this.run.peek()?.llm.close();
    this.run.value = run;
    this.other.value = other;
    this.source.value = source ?? (other?.isEdited ? undefined : other);
    this.draft.value = other?.edits ?? [];
    this.#lookAnew();
  }

  /** Nothing that was chosen of another run stays. */
  #lookAnew(): void {
    this.continuations.value = undefined;
    this.start.value = -1;
    this.selection.value = undefined;
    this.pins.value = [];
  }

  #showOther(other: RunView): void {
    this.other.value = other;
    this.source.value = other.isEdited ? this.source.value : other;
    this.#share("push");
  }

  #share(how: "push" | "replace"): void {
    const [run, other, source] = [this.run.value, this.other.value, this.source.value];
    if (run !== undefined) {
      share(this.model.value, { run, other, source }, how);
    }
  }

  async #paint(runs: readonly RunView[], stop: AbortSignal): Promise<void> {
    const all = runs.reduce((sum, { model }) => sum + model.nLayers, 0);
    let done = runs.reduce((sum, { layers }) => sum + layers.peek().length, 0);
    for (const run of runs) {
      await run.paint(stop, () => {
        done++;
        this.status.value = { kind: "busy", words: `Layer ${done} of ${all}`, share: done / all };
      });
    }
  }

  async #work(work: (stop: AbortSignal) => Promise<void>): Promise<void> {
    this.#stop.abort();
    const stop = new AbortController();
    this.#stop = stop;
    this.#unanswered = undefined;
    this.refused.value = undefined;
    this.growing.value = undefined;
    this.status.value = { kind: "busy", words: "Asking the server …" };
    const began = performance.now();
    try {
      await this.connection.watched(work(stop.signal));
      if (this.#stop === stop) {
        this.status.value = done(this.run.value as RunView, performance.now() - began);
      }
    } catch (error) {
      if (this.#stop !== stop) {
        this.connection.failed(error);
      } else if (isStopped(error) || stop.signal.aborted) {
        this.status.value = { kind: "idle", words: "Stopped." };
      } else {
        this.#failed(error, () => this.#work(work));
      }
    } finally {
      this.growing.value = this.#stop === stop ? undefined : this.growing.value;
    }
  }

  #failed(error: unknown, again: () => Promise<void>): void {
    this.status.value = { kind: "failed", words: "", error };
    this.#unanswered = error instanceof UnavailableError ? again : undefined;
    this.connection.failed(error);
  }
}

export const PageContext = createContext<PageState | undefined>(undefined);

/** The state, of any component of the page. */
export function usePage(): PageState {
  return useContext(PageContext) as PageState; // the page is in it as a whole
}
