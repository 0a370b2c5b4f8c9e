/** The output vectors of neurons, kept by the client under the model's digest: weights never change. */

import { create } from "@bufbuild/protobuf";
import type { NamedTensor } from "./assembler.js";
import type { Calls } from "./calls.js";
import { lengthsOf, outputBytes } from "./descriptions.js";
import { Expected } from "./expected.js";
import { NeuronOutputsRequestSchema } from "./gen/transparent_llm/v1/service_pb.js";
import { MODEL_READS } from "./methods.js";
import type { Scope } from "./scope.js";
import type { ModelDescription } from "./server_info.js";
import { SingleFlight } from "./single_flight.js";
import type { Tensor } from "./tensor.js";

/** Output vectors of whole layers. Shared by a client and its copies; nobody writes to them. */
export class Weights {
  readonly #calls: Calls;
  /** Least recently used first. */
  readonly #kept = new Map<string, Tensor>();
  readonly #flights = new SingleFlight<string, Tensor>();
  #bytes = 0;

  constructor(calls: Calls) {
    this.#calls = calls;
  }

  /** Whether those of a layer can be kept; otherwise a product is best sent as it is. */
  keeps(model: ModelDescription, layer: number): boolean {
    const needed = outputBytes(model, layer);
    const { weightsBytes, maxBytes } = this.#calls.config;
    return needed > 0 && needed <= Math.min(weightsBytes, maxBytes);
  }

  /**
   * The output vectors of all neurons of a layer [d_ffn d_model], fetched once.
   *
   * @throws NotFoundError MODEL_CHANGED: another model is served under the name by now.
   * @throws TooLargeError they take more than `maxBytes`.
   * @throws InternalError they are not those of the model.
   */
  async layer(model: ModelDescription, layer: number, scope: Scope): Promise<Tensor> {
    const key = `${model.digest}/${layer}`;
    const held = this.#kept.get(key);
    if (held !== undefined) {
      this.#kept.delete(key);
      this.#kept.set(key, held);
      return held;
    }
    return this.#flights.do(key, scope, async () => {
      const rows = await this.#fetch(model, layer, scope);
      this.#keep(key, rows);
      return rows;
    });
  }

  async #fetch(model: ModelDescription, layer: number, scope: Scope): Promise<Tensor> {
    const method = MODEL_READS.neuronOutputs;
    const named = { model: this.#calls.config.model, modelDigest: model.digest };
    const request = create(NeuronOutputsRequestSchema, { ...named, layer });
    const lengths = new Map([...(lengthsOf(model) ?? []), ["d_ffn", model.dFfn[layer] ?? 0]]);
    const expected = new Expected([{ method, options: {}, lengths }]);
    const [rows] = await this.#calls.tensors(method.rpc, request, expected, scope);
    return (rows as NamedTensor).tensor; // a stream without any is no whole one
  }

  #keep(key: string, rows: Tensor): void {
    this.#kept.set(key, rows);
    this.#bytes += rows.bytes.byteLength;
    for (const [oldest, held] of this.#kept) {
      if (this.#bytes <= this.#calls.config.weightsBytes) {
        break;
      }
      this.#kept.delete(oldest);
      this.#bytes -= held.bytes.byteLength;
    }
  }
}
