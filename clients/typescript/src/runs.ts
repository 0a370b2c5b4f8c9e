/** Runs on a server, which are made again when it has lost them. */

import { create } from "@bufbuild/protobuf";
import type { Calls } from "./calls.js";
import type { Chat } from "./chat.js";
import type { RemoteTransparentLlm } from "./client.js";
import { comparisonsOf, type RowComparison, startOf } from "./comparison.js";
import { NotFoundError } from "./errors.js";
import type { Features } from "./features.js";
import { CompareRunsRequestSchema, TransparentLlmService } from "./gen/transparent_llm/v1/service_pb.js";
import type { SweepResponse } from "./gen/transparent_llm/v1/sweeps_pb.js";
import type { Generation, Prompts } from "./generation.js";
import type { Sweep, SweepValues } from "./interventions/sweep.js";
import { type Recipe, type Run, runOfResponse } from "./run.js";
import { type RunInput, runKey, runRequest } from "./run_input.js";
import type { Scope } from "./scope.js";
import { SingleFlight } from "./single_flight.js";

/**
 * Of one read. Behind a proxy a run can fall to another server each time that one comes or goes; a server that
 * forgets it each time at once has too little room.
 */
const MOST_RERUNS = 3;

type Sources = ReadonlyMap<RemoteTransparentLlm, Run>;
/** Told of the run that stands for a lost one. */
type Replace = (was: Run, is: Run) => void;

/** Makes runs for a client and its copies. */
export class Runs {
  readonly #calls: Calls;
  readonly #features: Features;
  readonly #reruns = new SingleFlight<Run, Run>();

  constructor(calls: Calls, features: Features) {
    this.#calls = calls;
    this.#features = features;
  }

  /**
   * Run an input, changed by edits.
   *
   * @param key where it is run; absent: where its input leads.
   */
  async make(recipe: Recipe, scope: Scope, key = runKey(recipe.input, this.#calls.config.model)): Promise<Run> {
    if (recipe.edits.length > 0) {
      await this.#features.require("edits", scope);
    }
    return this.#make(recipe, key, scope);
  }

  /**
   * Read from a run, which is made again if the server has lost it.
   *
   * @param replace told of the run that stands for a lost one.
   * @param sources further runs that the read takes from.
   * @throws NotFoundError RUN_NOT_FOUND: it is lost each time, or is not to be made again. MODEL_CHANGED: another
   *   model is served under the name by now.
   */
  async read<T>(
    run: Run,
    scope: Scope,
    read: (run: Run, scope: Scope) => Promise<T>,
    replace: Replace,
    sources: Sources = new Map(),
  ): Promise<T> {
    let current = run;
    const most = MOST_RERUNS + sources.size;
    for (let reruns = 0; ; reruns++) {
      let missing: string | undefined;
      try {
        return await read(current, scope);
      } catch (error) {
        if (!this.#calls.config.rerun || reruns === most || !isLostRun(error)) {
          throw error;
        }
        missing = error.metadata["run_id"];
      }
      const source = [...sources.values()].find(({ id }) => id === missing && id !== current.id);
      if (source !== undefined) {
        const made = await this.#make(source, current.key, scope);
        requireSameModel(source.modelDigest, made.modelDigest, this.#calls.config.target);
        continue;
      }
      const again = await this.#again(current, scope);
      replace(current, again);
      current = again;
    }
  }

  /** Run it where a routing key leads; what it takes from is run again there if it is not there. */
  async #make(recipe: Recipe, key: string, scope: Scope): Promise<Run> {
    const { model } = this.#calls.config;
    const edits = recipe.edits.map((edit) => edit.toWire((source) => recipe.sources.get(source)?.id ?? ""));
    const request = runRequest(recipe.input, model, edits);
    const response = await this.#withSources(recipe.sources, key, scope, () =>
      this.#calls.unary(TransparentLlmService.method.run, request, scope, key),
    );
    return runOfResponse(recipe, key, response);
  }

  /** Make a call; runs that it takes from and that are lost are made again where it goes, each once. */
  async #withSources<T>(sources: Sources, key: string, scope: Scope, call: () => Promise<T>): Promise<T> {
    const lost = new Set<string>();
    for (;;) {
      try {
        return await call();
      } catch (error) {
        const missing = isLostRun(error) ? error.metadata["run_id"] : undefined;
        const source = [...sources.values()].find(({ id }) => id === missing);
        if (!this.#calls.config.rerun || source === undefined || lost.has(source.id)) {
          throw error;
        }
        lost.add(source.id);
        await this.#make(source, key, scope);
      }
    }
  }

  /** Go on with an input; gives the rows that are to be run, and where: the server that has just computed them. */
  async generate(
    generation: Generation,
    input: Prompts,
    sources: Sources,
    scope: Scope,
  ): Promise<{ rows: readonly (readonly number[])[]; key: string }> {
    await this.#features.require("generate", scope);
    const { model } = this.#calls.config;
    const key = runKey("messages" in input ? sentencesOf(input) : input, model);
    const idOf = (source: RemoteTransparentLlm): string => sources.get(source)?.id ?? "";
    const rows = await this.#withSources(sources, key, scope, () =>
      this.#calls.each(
        TransparentLlmService.method.generate,
        () => generation.request(model, idOf),
        (message) => generation.take(message),
        () => generation.result(),
        scope,
        key,
      ),
    );
    return { rows, key };
  }

  /** Changes of a run at one place after another, which take from these runs. */
  async sweep(
    run: Run,
    sweep: Sweep,
    sources: Sources,
    scope: Scope,
    { replace, onPart }: { replace: Replace; onPart: () => void },
  ): Promise<SweepValues> {
    await this.#features.require("sweep", scope);
    const idOf = (source: RemoteTransparentLlm): string => sources.get(source)?.id ?? "";
    const take = (message: SweepResponse): boolean => {
      const hasCells = sweep.take(message);
      if (hasCells) {
        onPart();
      }
      return hasCells;
    };
    const read = (current: Run): Promise<SweepValues> =>
      this.#calls.each(
        TransparentLlmService.method.sweep,
        () => sweep.request(current.id, current.tokens.shape[0] ?? 0, idOf),
        take,
        () => sweep.result(),
        scope,
        current.key,
      );
    return this.read(run, scope, read, replace, sources);
  }

  /**
   * What a run says of the next token beside another one, which is made where the run is if it is not there; from a position
   * on where one is given.
   */
  async compare(
    run: Run,
    sources: Sources,
    scope: Scope,
    { replace, fromPos }: { replace: Replace; fromPos: number | undefined },
  ): Promise<RowComparison[]> {
    await this.#features.require(fromPos === undefined ? "compare_runs" : "compare_positions", scope);
    const otherRunId = [...sources.values()][0]?.id ?? run.id;
    const read = async (current: Run): Promise<RowComparison[]> => {
      const start = fromPos === undefined ? undefined : startOf(current, fromPos);
      const fields = { runId: current.id, otherRunId, ...(start !== undefined && { fromPos: start }) };
      const request = create(CompareRunsRequestSchema, fields);
      const answer = await this.#calls.unary(TransparentLlmService.method.compareRuns, request, scope, current.key);
      return comparisonsOf(answer, current, start);
    };
    return this.read(run, scope, read, replace, sources);
  }

  async #again(run: Run, scope: Scope): Promise<Run> {
    const again = await this.#reruns.do(run, scope, () => this.make(run, scope, run.key));
    requireSameModel(run.modelDigest, again.modelDigest, this.#calls.config.target);
    return again;
  }
}

/** What leads a chat to a server: a run of its messages. */
function sentencesOf({ messages }: Chat): RunInput {
  return { sentences: messages.map(({ content }) => content) };
}

function isLostRun(error: unknown): error is NotFoundError {
  return error instanceof NotFoundError && error.reason === "RUN_NOT_FOUND";
}

function requireSameModel(was: string, is: string, target: string): void {
  if (was !== is) {
    throw new NotFoundError(
      `${target} lost the run and now serves another model under this name; call run() again if that is what you want`,
      { reason: "MODEL_CHANGED", metadata: { was, is } },
    );
  }
}
