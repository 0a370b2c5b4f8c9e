/** Vectors that an edit takes from somewhere: sent as they are, or found where the model is, which needs no upload. */

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { RemoteTransparentLlm } from "../client.js";
import { isFloating } from "../dtypes.js";
import { InvalidRequestError } from "../errors.js";
import { FeatureDirection, type VectorSchema } from "../gen/transparent_llm/v1/interventions_pb.js";
import { quoted } from "../legible.js";
import { requireName } from "../parameters.js";
import { Tensor, wireOfTensor } from "../tensor.js";
import { requireInt32 } from "./checks.js";
import { Site } from "./site.js";

/** The run id of an object's run, as it was when the edit was used. */
export type RunIdOf = (source: RemoteTransparentLlm) => string;
type WireVector = MessageInitShape<typeof VectorSchema>;

/** Differences within differences that a server takes. */
const DEEPEST = 8;

/** As wide as the site that it is used at. Made by the functions of this module. */
export class Vector {
  /** @internal */
  readonly toWire: (runIdOf: RunIdOf) => WireVector;
  /** @internal Objects whose current runs are meant. */
  readonly sources: readonly RemoteTransparentLlm[];
  readonly #depth: number;

  /** @internal */
  constructor(toWire: (runIdOf: RunIdOf) => WireVector, sources: readonly RemoteTransparentLlm[] = [], depth = 0) {
    this.toWire = toWire;
    this.sources = sources;
    this.#depth = depth;
  }

  /**
   * This vector less another one.
   *
   * @throws InvalidRequestError too many differences within differences.
   */
  minus(other: Vector | Tensor | ArrayLike<number>): Vector {
    const subtrahend = vectorOf(other);
    const depth = Math.max(this.#depth, subtrahend.#depth) + 1;
    if (depth > DEEPEST) {
      throw new InvalidRequestError(`a vector of ${depth} differences within each other, at most ${DEEPEST} are taken`);
    }
    const toWire = (runIdOf: RunIdOf): WireVector => ({
      source: {
        case: "difference",
        value: { minuend: this.toWire(runIdOf), subtrahend: subtrahend.toWire(runIdOf) },
      },
    });
    return new Vector(toWire, [...this.sources, ...subtrahend.sources], depth);
  }
}

/**
 * These numbers: [d], or a row for each position that is selected [n d]. Plain numbers are sent in single precision.
 *
 * @throws InvalidRequestError another shape, no floating numbers, or some that are not finite.
 */
export function literal(values: Tensor | ArrayLike<number>): Vector {
  const tensor = values instanceof Tensor ? values : Tensor.ofFloats(requireNumbers(values));
  const { dtype, shape, length } = tensor;
  if (![1, 2].includes(shape.length) || length === 0 || !isFloating(dtype)) {
    throw new InvalidRequestError(
      `a vector is floating numbers [d], or [n d] with a row for each position, got ${dtype} of shape [${shape.join(", ")}]`,
    );
  }
  if (!tensor.toFloat64().every(Number.isFinite)) {
    throw new InvalidRequestError("a vector has elements that are not finite");
  }
  const value = wireOfTensor(tensor);
  return new Vector(() => ({ source: { case: "literal", value } }));
}

/** What the current run of `source` had at a site, at one position of one row: a steering vector from another sentence. */
export function runValue(
  site: Site,
  source: RemoteTransparentLlm,
  { row, pos }: { readonly row: number; readonly pos: number },
): Vector {
  const where = { site: requireSite(site).wire, row: requireInt32("row", row), pos: requireInt32("pos", pos) };
  return new Vector(
    (runIdOf) => ({ source: { case: "value", value: { ...where, runId: runIdOf(source) } } }),
    [source],
  );
}

/** The direction that a token's logit reads [d_model]. `unembedding(a).minus(unembedding(b))` is that of a difference. */
export function unembedding(token: number): Vector {
  const value = requireInt32("token", token);
  return new Vector(() => ({ source: { case: "unembedding", value } }));
}

/** What a neuron writes [d_model]. */
export function neuronOutput(layer: number, neuron: number): Vector {
  const value = { layer: requireInt32("layer", layer), neuron: requireInt32("neuron", neuron) };
  return new Vector(() => ({ source: { case: "neuronOutput", value } }));
}

/** A vector, or numbers that are one. */
export function vectorOf(given: Vector | Tensor | ArrayLike<number>): Vector {
  return given instanceof Vector ? given : literal(given);
}

/** @throws InvalidRequestError it is none. */
export function requireSite(given: unknown): Site {
  if (!(given instanceof Site)) {
    throw new InvalidRequestError(`an edit is at a site such as residualOut(3), got ${typeof given}`);
  }
  return given;
}

function requireNumbers(given: unknown): ArrayLike<number> {
  if (typeof given !== "object" || given === null || !("length" in given)) {
    throw new InvalidRequestError(`a vector is numbers in an array or a tensor, or literal(...), got ${typeof given}`);
  }
  return given as ArrayLike<number>;
}

/**
 * What a feature of a sparse autoencoder of the model writes: its row of the decoder, as wide as its site, of a transcoder as
 * its output's.
 *
 * @param sae its name on the server; `serverInfo` has them.
 * @param feature its index; negative ones count from the end.
 * @param direction "encoder": its column of the encoder instead, which it reads.
 * @throws InvalidRequestError no name, or no such direction.
 */
export function saeFeature(sae: string, feature: number, direction: "decoder" | "encoder" = "decoder"): Vector {
  if (direction !== "decoder" && direction !== "encoder") {
    throw new InvalidRequestError(`direction must be "decoder" or "encoder", got ${quoted(String(direction))}`);
  }
  const of = direction === "decoder" ? FeatureDirection.DECODER : FeatureDirection.ENCODER;
  const value = { ...featureOf(sae, feature), direction: of };
  return new Vector(() => ({ source: { case: "saeFeature", value } }));
}

/** @throws InvalidRequestError no name, or no integer. */
export function featureOf(sae: unknown, feature: unknown): { sae: string; feature: number } {
  if (sae === "") {
    throw new InvalidRequestError("sae is empty: an edit names its sparse autoencoder");
  }
  return { sae: requireName("sae", sae), feature: requireInt32("feature", feature) };
}
