/** Runs on a server, which are made again when it has lost them. */

import type { Calls } from "./calls.js";
import { NotFoundError } from "./errors.js";
import { TransparentLlmService } from "./gen/transparent_llm/v1/service_pb.js";
import { type Run, runOfResponse } from "./run.js";
import { type RunInput, runKey, runRequest } from "./run_input.js";
import type { Scope } from "./scope.js";
import { SingleFlight } from "./single_flight.js";

/**
 * Of one read. Behind a proxy a run can fall to another server each time that one comes or goes; a server that
 * forgets it each time at once has too little room.
 */
const MOST_RERUNS = 3;

/** Makes runs for a client and its copies. */
export class Runs {
  readonly #calls: Calls;
  readonly #reruns = new SingleFlight<Run, Run>();

  constructor(calls: Calls) {
    this.#calls = calls;
  }

  /** Run an input. */
  async make(input: RunInput, scope: Scope): Promise<Run> {
    const { model } = this.#calls.config;
    const key = runKey(input, model);
    const request = runRequest(input, model);
    return runOfResponse(input, key, await this.#calls.unary(TransparentLlmService.method.run, request, scope, key));
  }

  /**
   * Read from a run, which is made again if the server has lost it.
   *
   * @param replace told of the run that stands for a lost one.
   * @throws NotFoundError RUN_NOT_FOUND: it is lost each time, or is not to be made again. MODEL_CHANGED: another
   *   model is served under the name by now.
   */
  async read<T>(
    run: Run,
    scope: Scope,
    read: (run: Run, scope: Scope) => Promise<T>,
    replace: (was: Run, is: Run) => void,
  ): Promise<T> {
    let current = run;
    for (let reruns = 0; ; reruns++) {
      try {
        return await read(current, scope);
      } catch (error) {
        if (!this.#calls.config.rerun || reruns === MOST_RERUNS || !isLostRun(error)) {
          throw error;
        }
      }
      const again = await this.#again(current, scope);
      replace(current, again);
      current = again;
    }
  }

  async #again(run: Run, scope: Scope): Promise<Run> {
    const again = await this.#reruns.do(run, scope, () => this.make(run.input, scope));
    requireSameModel(run.modelDigest, again.modelDigest, this.#calls.config.target);
    return again;
  }
}

function isLostRun(error: unknown): boolean {
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
