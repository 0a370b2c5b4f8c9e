/** What is known of models, by their digests: each is asked for once. */

import { create } from "@bufbuild/protobuf";
import type { Calls } from "./calls.js";
import { type DtypeName, sizeOf } from "./dtypes.js";
import { ServerInfoRequestSchema, TransparentLlmService } from "./gen/transparent_llm/v1/service_pb.js";
import type { Scope } from "./scope.js";
import { type ModelDescription, type ServerInfo, serverInfoOf } from "./server_info.js";
import { SingleFlight } from "./single_flight.js";

/** A server that says to be another model at each run must not fill the memory. */
const MOST_MODELS = 64;
const NEURON_OUTPUTS = "neuron_outputs";

/** Of models whose neurons' output vectors the server can send. Shared by a client and its copies. */
export class Descriptions {
  readonly #calls: Calls;
  readonly #known = new Map<string, ModelDescription | undefined>();
  readonly #meant = new Map<string, ModelDescription>();
  readonly #flights = new SingleFlight<string, ModelDescription | undefined>();

  constructor(calls: Calls) {
    this.#calls = calls;
  }

  /** What is known already; no call is made. */
  known(digest: string): ModelDescription | undefined {
    return this.#known.get(digest) ?? this.#meant.get(digest);
  }

  /** The model with this digest; undefined if it is not served, or if the server cannot send output vectors. */
  async of(digest: string, scope: Scope): Promise<ModelDescription | undefined> {
    if (this.#known.has(digest)) {
      return this.#known.get(digest);
    }
    return this.#flights.do(digest, scope, async () => {
      const { features, models } = await this.#asked(scope);
      const model = features.includes(NEURON_OUTPUTS) ? models.find((each) => each.digest === digest) : undefined;
      if (this.#known.size >= MOST_MODELS) {
        this.#known.clear();
      }
      this.#known.set(digest, model);
      return model;
    });
  }

  /** The model that a call is for: with this digest or, if it is empty, of the client's name; undefined if there is none. */
  async meant(digest: string, scope: Scope): Promise<ModelDescription | undefined> {
    const known = this.known(digest);
    if (known !== undefined) {
      return known;
    }
    const { models } = await this.#asked(scope);
    const { model: name } = this.#calls.config;
    const isMeant = (each: ModelDescription): boolean =>
      digest === "" ? name === "" || each.name === name || each.aliases.includes(name) : each.digest === digest;
    const [found, ...others] = models.filter(isMeant);
    if (found === undefined || others.length > 0 || found.digest === "") {
      return undefined; // one that was never loaded has no sizes
    }
    if (this.#meant.size >= MOST_MODELS) {
      this.#meant.clear();
    }
    this.#meant.set(found.digest, found);
    return found;
  }

  async #asked(scope: Scope): Promise<ServerInfo> {
    const request = create(ServerInfoRequestSchema);
    return serverInfoOf(await this.#calls.unary(TransparentLlmService.method.serverInfo, request, scope));
  }
}

/** Lengths of the axes of a model, the same in all its layers. */
export function lengthsOf(model: ModelDescription | undefined): ReadonlyMap<string, number> | undefined {
  return (
    model &&
    new Map([
      ["d_model", model.dModel],
      ["d_vocab", model.dVocab],
      ["layer", model.nLayers],
      ["head", model.nHeads],
      ["later_layer", model.nLayers],
      ["later_head", model.nHeads],
    ])
  );
}

/** Bytes of the output vectors of a layer; 0 for one that does not exist. */
export function outputBytes({ dFfn, dModel, dtype }: ModelDescription, layer: number): number {
  const element: DtypeName = dtype ?? "F32";
  return (dFfn[layer] ?? 0) * dModel * sizeOf(element);
}
