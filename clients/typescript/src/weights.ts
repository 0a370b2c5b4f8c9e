/** The output vectors of neurons, kept by the client under the model's digest: weights never change. */

import { create } from "@bufbuild/protobuf";
import type { NamedTensor } from "./assembler.js";
import type { Calls } from "./calls.js";
import { InternalError, TooLargeError } from "./errors.js";
import { NeuronOutputsRequestSchema } from "./gen/transparent_llm/v1/service_pb.js";
import { MODEL_READS } from "./methods.js";
import type { Scope } from "./scope.js";
import { SingleFlight } from "./single_flight.js";
import type { Tensor } from "./tensor.js";

/** Output vectors of whole layers. Shared by a client and its copies; nobody writes to them. */
export class Weights {
  readonly #calls: Calls;
  /** Least recently used first. */
  readonly #kept = new Map<string, Tensor>();
  readonly #tooLarge = new Set<string>();
  readonly #flights = new SingleFlight<string, Tensor>();
  #bytes = 0;

  constructor(calls: Calls) {
    this.#calls = calls;
  }

  /** Whether those of a layer can be kept, for all that is known; otherwise a product is best sent as it is. */
  keeps(digest: string, layer: number): boolean {
    return !this.#tooLarge.has(keyOf(digest, layer));
  }

  /**
   * The output vectors of all neurons of a layer [d_ffn d_model], fetched once.
   *
   * @throws NotFoundError MODEL_CHANGED: another model is served under the name by now.
   * @throws TooLargeError they take more than `maxBytes`.
   */
  async layer(digest: string, layer: number, scope: Scope): Promise<Tensor> {
    const key = keyOf(digest, layer);
    const held = this.#kept.get(key);
    if (held !== undefined) {
      this.#kept.delete(key);
      this.#kept.set(key, held);
      return held;
    }
    return this.#flights.do(key, scope, async () => {
      const rows = await this.#fetch(digest, layer, scope);
      this.#keep(key, rows);
      return rows;
    });
  }

  async #fetch(digest: string, layer: number, scope: Scope): Promise<Tensor> {
    const { rpc, header } = MODEL_READS.neuronOutputs;
    const { model } = this.#calls.config;
    const request = create(NeuronOutputsRequestSchema, { model, layer, modelDigest: digest });
    try {
      return onlyTensor(await this.#calls.tensors(rpc, request, scope), header);
    } catch (error) {
      if (error instanceof TooLargeError) {
        this.#tooLarge.add(keyOf(digest, layer));
      }
      throw error;
    }
  }

  #keep(key: string, rows: Tensor): void {
    const { weightsBytes } = this.#calls.config;
    if (rows.bytes.byteLength > weightsBytes) {
      this.#tooLarge.add(key);
      return;
    }
    this.#kept.set(key, rows);
    this.#bytes += rows.bytes.byteLength;
    for (const [oldest, held] of this.#kept) {
      if (this.#bytes <= weightsBytes) {
        break;
      }
      this.#kept.delete(oldest);
      this.#bytes -= held.bytes.byteLength;
    }
  }
}

/**
 * The tensor of a stream that must hold one, of this name.
 *
 * @throws InternalError it holds others.
 */
export function onlyTensor(arrived: readonly NamedTensor[], header: string): Tensor {
  const [first] = arrived;
  if (arrived.length !== 1 || first?.name !== header) {
    throw new InternalError(`the server sent ${arrived.map(({ name }) => name).join(", ")}, not one ${header}`);
  }
  return first.tensor;
}

function keyOf(digest: string, layer: number): string {
  return `${digest}/${layer}`;
}
