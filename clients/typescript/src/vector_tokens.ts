/** The tokens that a vector of the residual stream speaks for and against, found next to the weights. */

import { create } from "@bufbuild/protobuf";
import type { Calls } from "./calls.js";
import { isFloating } from "./dtypes.js";
import { InternalError, InvalidRequestError } from "./errors.js";
import {
  type TopTokensRequest,
  TopTokensRequestSchema,
  type TopTokensResponse,
  TransparentLlmService,
} from "./gen/transparent_llm/v1/service_pb.js";
import type { CallOptions } from "./options.js";
import { MOST_NUMBERS, requireWithin } from "./parameters.js";
import type { Scope } from "./scope.js";
import { type Tensor, wireOfTensor } from "./tensor.js";

/** What `topTokens` can be asked. */
export interface TopTokensOptions extends CallOptions {
  /**
   * Apply the final norm and the model's own post-processing of logits, as `unembed` does. Default: false, the plain
   * product with the unembedding matrix.
   */
  readonly normalize?: boolean | undefined;
  /** How many of the tokens with the largest logits, 4096 at most. Default: 10. */
  readonly k?: number | undefined;
  /** How many of those with the smallest, 4096 at most. Default: 0. */
  readonly bottomK?: number | undefined;
}

/** What `topTokens` answers; logits are those of `unembed` in single precision. */
export interface VectorTokens {
  /** The tokens with the largest logits, in falling order. */
  readonly topIds: number[];
  readonly topLogits: number[];
  /** Those with the smallest, in rising order. */
  readonly bottomIds: number[];
  readonly bottomLogits: number[];
  /** The logarithm of the sum of all exponentials: a probability is exp(logit - logsumexp). */
  readonly logsumexp: number;
}

/**
 * What is asked of a vector, which is copied.
 *
 * @param named the model, and the digest of the one that is meant; an empty one: whichever is served.
 * @throws InvalidRequestError no floating numbers [d_model], or so many tokens as no answer has.
 */
export function topTokensRequest(
  vector: Tensor,
  options: TopTokensOptions,
  named: { readonly model: string; readonly modelDigest: string },
): TopTokensRequest {
  if (vector.shape.length !== 1 || !isFloating(vector.dtype)) {
    throw new InvalidRequestError(
      `topTokens takes floating numbers [d_model], got ${vector.dtype} of shape [${vector.shape.join(", ")}]`,
      { reason: vector.shape.length === 1 ? "INVALID_DTYPE" : "INVALID_SHAPE" },
    );
  }
  const { normalize = false, k = 10, bottomK = 0 } = options;
  const within = (name: string, count: number): number => requireWithin(name, count, 0, MOST_NUMBERS);
  const counts = { k: within("k", k), bottomK: within("bottomK", bottomK) };
  return create(TopTokensRequestSchema, { ...named, t: wireOfTensor(vector), normalize, ...counts });
}

/** @throws InternalError the answer is none to this request. */
export async function vectorTokens(calls: Calls, request: TopTokensRequest, scope: Scope): Promise<VectorTokens> {
  const found = await calls.unary(TransparentLlmService.method.topTokens, request, scope);
  requireAnswer(found, request.k, request.bottomK);
  const { topIds, topLogits, bottomIds, bottomLogits, logsumexp } = found;
  return { topIds, topLogits, bottomIds, bottomLogits, logsumexp };
}

function requireAnswer(found: TopTokensResponse, k: number, bottomK: number): void {
  const { topIds, topLogits, bottomIds, bottomLogits, logsumexp } = found;
  const counts = [topIds, topLogits, bottomIds, bottomLogits].map(({ length }) => length);
  const expected = [k, k, bottomK, bottomK];
  if (counts.some((count, i) => count !== expected[i])) {
    throw new InternalError(
      `the server sent ${counts.join(", ")} best tokens, their logits, worst tokens and theirs: not ${expected.join(", ")}`,
    );
  }
  if ([...topIds, ...bottomIds].some((id) => id < 0)) {
    throw new InternalError("the server sent a negative token id");
  }
  if (![...topLogits, ...bottomLogits, logsumexp].every(Number.isFinite)) {
    throw new InternalError("the server sent logits that are not finite");
  }
}
