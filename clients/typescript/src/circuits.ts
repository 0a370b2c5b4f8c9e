/** The weights of attention heads and what is made of them next to the weights, without any run. */

import { InternalError } from "./errors.js";
import { indexFields, type Method, WEIGHT_READS } from "./methods.js";
import type { ReadOptions } from "./options.js";
import { fieldOf, type Parameter } from "./parameters.js";
import { named, parted, whole } from "./parts.js";
import type { Arrived } from "./reads.js";
import { SaeAnalyses } from "./sae_analyses.js";
import type { Tensor } from "./tensor.js";

/** What of a later head an earlier one can write to: its queries, its keys or its values. */
export type CompositionKind = "q" | "k" | "v";

/** What `compositionScores` is asked for. */
export interface CompositionParameters {
  /** Default: "k". */
  readonly kind?: CompositionKind | undefined;
}

/** A head's circuits: what it writes of what it attends to, and what it attends to. */
export type HeadCircuit = "ov" | "qk";

/** What `copyingScores` is asked for. */
export interface CopyingParameters {
  /** Default: "ov". */
  readonly circuit?: HeadCircuit | undefined;
}

/** What `headWeights` answers: `v` times `o` is the OV circuit of the head, `q` times the transposed `k` its QK circuit. */
export interface HeadWeights {
  /** [d_model d_head] */
  readonly q: Tensor;
  /** [d_model d_head] */
  readonly k: Tensor;
  /** [d_model d_head] */
  readonly v: Tensor;
  /** [d_head d_model] */
  readonly o: Tensor;
}

/**
 * A model whose weights of heads can be read: of the model that was run last or, before any run, of the one that is served.
 * They are as the model has them: gains of norms are not folded in, biases are not part of them, and rotary embeddings and
 * norms of queries and keys are as if they were not there.
 */
export abstract class Circuits extends SaeAnalyses {
  /** What comes for a read of weights, from a server that has the feature. */
  protected abstract ofWeights(
    method: Method,
    fields: object,
    options: ReadOptions,
    feature?: string,
  ): Promise<Arrived>;

  /**
   * The weights of one head; those of keys and values are what it shares with other heads, if it does.
   *
   * @throws IndexOutOfRangeError layer or head.
   * @throws NotSupportedError the layer has no heads with such weights, or the server is of an older version.
   */
  async headWeights(layer: number, head: number, options: ReadOptions = {}): Promise<HeadWeights> {
    const { headWeights } = WEIGHT_READS;
    const came = await this.ofWeights(headWeights, indexFields(headWeights, [layer, head]), options);
    const found = named(came, "q", "k", "v", "o");
    const widths = [...Object.values(found)].map(({ dims, shape }) => shape[dims.indexOf("d_head")]);
    if (new Set(widths).size !== 1) {
      throw new InternalError(`the server sent weights of one head that are ${widths.join(", ")} wide`);
    }
    return found;
  }

  /**
   * How much of what each head writes each later head reads: ||A B|| / (||A|| ||B||) in Frobenius norms, where A is v o of
   * the earlier head, and B of the later one q k^T, k q^T or v o. NaN where the first is not in an earlier layer, and where a
   * product is 0. [layer head later_layer later_head] Slices of layers save their work.
   *
   * @throws TooLargeError more work than the server does for one answer.
   */
  async compositionScores(options: CompositionParameters & ReadOptions = {}): Promise<Tensor> {
    const [{ kind = "k" }, rest] = parted(options, "kind");
    const { compositionScores } = WEIGHT_READS;
    const field = fieldOf(compositionScores.parameters.get("kind") as Parameter, kind);
    return whole(await this.ofWeights(compositionScores, { kind: field }, rest));
  }

  /**
   * How much each head copies, or attends to tokens that are the same as its own: sum(Re(e)) / sum(|e|) over the
   * eigenvalues e of W_E v o W_U, or of W_E q k^T W_E^T. Near 1 a head copies, near -1 it suppresses; NaN where all are 0.
   * [layer head]
   *
   * @throws TooLargeError more work than the server does for one answer.
   */
  async copyingScores(options: CopyingParameters & ReadOptions = {}): Promise<Tensor> {
    const [{ circuit = "ov" }, rest] = parted(options, "circuit");
    const { copyingScores } = WEIGHT_READS;
    const field = fieldOf(copyingScores.parameters.get("circuit") as Parameter, circuit);
    const feature = circuit === "qk" ? "matching_scores" : "circuits"; // an older server would answer for "ov"
    return whole(await this.ofWeights(copyingScores, { circuit: field }, rest, feature));
  }
}
