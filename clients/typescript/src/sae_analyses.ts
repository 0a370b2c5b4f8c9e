/** Analyses by sparse autoencoders and transcoders that the server's operator gave; `serverInfo` says which a model has. */

import { Analyses } from "./analyses.js";
import type { ReadOptions } from "./options.js";
import { named, parted, whole } from "./parts.js";
import type { Tensor } from "./tensor.js";

/** Which sparse autoencoder, and where it is looked at. */
export interface SaeParameters {
  /** Its name. Default: the only one that the model has. */
  readonly sae?: string | undefined;
  /** Positions of the row, negative ones from its last token. Default: all. */
  readonly positions?: readonly number[] | undefined;
}

/** What `features` is asked for. */
export interface FeaturesParameters extends SaeParameters {
  /** How many features of each position, those that are most active. Default: 0. */
  readonly k?: number | undefined;
}

/** What `featureActivations` is asked for. */
export interface FeatureActivationsParameters extends SaeParameters {
  /** The features; negative ones count from the end. */
  readonly featureIds: readonly number[];
}

/** What `features` answers. A padded position has NaN, and -1 for features and counts. */
export interface SaeFeatures {
  /** The most active features, in falling order; -1 where fewer are active. [pos rank] I64 */
  readonly ids: Tensor;
  /** Theirs; 0 where fewer are active. [pos rank] */
  readonly activations: Tensor;
  /** How many features are active: over 0. [pos] I64 */
  readonly active: Tensor;
  /** Length of what the features do not account for. [pos] */
  readonly errorNorm: Tensor;
  /** Share of variance explained: 1 - error^2 / (squared distance from the mean over the row's tokens). [pos] */
  readonly explained: Tensor;
}

/** A model that can be asked what sparse autoencoders find in its current run. */
export abstract class SaeAnalyses extends Analyses {
  /**
   * The most active features at positions of a row.
   *
   * @throws InvalidRequestError there is no such sparse autoencoder, or it has fewer features than `k`.
   * @throws NotSupportedError the model has none, or the server is of an older version.
   */
  async features(batchI: number, options: FeaturesParameters & ReadOptions = {}): Promise<SaeFeatures> {
    const [parameters, rest] = parted(options, "sae", "positions", "k");
    const came = await this.analysed(["features", batchI, parameters], rest);
    return named(came, "ids", "activations", "active", "errorNorm", "explained");
  }

  /** Activations of chosen features at positions of a row. [pos feature] It throws the same, and `IndexOutOfRangeError`. */
  async featureActivations(batchI: number, options: FeatureActivationsParameters & ReadOptions): Promise<Tensor> {
    const [parameters, rest] = parted(options, "sae", "positions", "featureIds");
    return whole(await this.analysed(["featureActivations", batchI, parameters], rest));
  }
}
