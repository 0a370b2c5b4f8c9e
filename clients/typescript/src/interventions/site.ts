/** Where a run can be changed: a tensor of one layer that is on the way from tokens to logits. */

import { create } from "@bufbuild/protobuf";
import { InvalidRequestError } from "../errors.js";
import { SiteKind, SiteSchema, type Site as WireSite } from "../gen/transparent_llm/v1/interventions_pb.js";
import { requireInt32 } from "./checks.js";

const MOST_LISTED = 8;

/** A tensor of one layer. Made by the functions of this module; negative layers count from the end. */
export class Site {
  /** @internal */
  readonly wire: WireSite;

  /** @internal */
  constructor(kind: SiteKind, layer: number, head?: number | "all", neurons: readonly number[] = []) {
    requireInt32("layer", layer);
    const ofHead = head === undefined ? {} : head === "all" ? { allHeads: true } : { head: requireInt32("head", head) };
    this.wire = create(SiteSchema, { kind, layer, ...ofHead, neurons: [...neurons] });
  }

  /** As it is written in Python, and as tensors of gradients are named: "head(1, 2)". */
  toString(): string {
    const { kind, layer, head, neurons } = this.wire;
    const more = [layer, ...(head === undefined ? [] : [head]), ...(neurons.length > 0 ? [listed(neurons)] : [])];
    return `${(SiteKind[kind] as string).toLowerCase()}(${more.join(", ")})`;
  }
}

/** @throws InvalidRequestError it is missing, or no head. */
function requireHead(head: number | "all"): number | "all" {
  return head === "all" ? head : requireInt32("head", head);
}

/** The first few of some numbers, in brackets, and how many there are. */
function listed(numbers: readonly number[]): string {
  const more = numbers.length > MOST_LISTED ? [`... ${numbers.length} in all`] : [];
  return `[${[...numbers.slice(0, MOST_LISTED), ...more].join(", ")}]`;
}

/** The residual stream as it enters a block [pos d_model]; that of layer 0 is the embedding. */
export function residualIn(layer: number): Site {
  return new Site(SiteKind.RESIDUAL_IN, layer);
}

/**
 * The residual stream between attention and feed-forward part [pos d_model]. Blocks that compute both side by side
 * have none.
 */
export function residualAfterAttn(layer: number): Site {
  return new Site(SiteKind.RESIDUAL_AFTER_ATTN, layer);
}

/** The residual stream as it leaves a block [pos d_model]: `residualIn(layer + 1)` is the same tensor. */
export function residualOut(layer: number): Site {
  return new Site(SiteKind.RESIDUAL_OUT, layer);
}

/** What attention adds to the residual stream [pos d_model], with its bias, any norm after it and multiplier. */
export function attnOut(layer: number): Site {
  return new Site(SiteKind.ATTN_OUT, layer);
}

/** What the feed-forward part adds to the residual stream [pos d_model], with bias, norm and multiplier. */
export function ffnOut(layer: number): Site {
  return new Site(SiteKind.FFN_OUT, layer);
}

/**
 * What a query head has mixed of the values [pos d_head] ("z"), before its output weights; of all heads of the layer one after
 * the other [pos n_heads * d_head]. A norm after attention is computed of the changed sum.
 */
export function head(layer: number, head: number | "all"): Site {
  return new Site(SiteKind.HEAD, layer, requireHead(head));
}

/**
 * Attention probabilities of a query head, after the softmax [query_pos key_pos], or of all heads of the layer
 * [query_pos n_heads * key_pos]. `positions` of an edit are queries. Their rows need not sum to 1 afterwards; what a query may
 * not see stays 0.
 */
export function pattern(layer: number, head: number | "all"): Site {
  return new Site(SiteKind.PATTERN, layer, requireHead(head));
}

/**
 * The query of a head, or of all, as it is multiplied with keys [pos d_head]: after rotary embeddings, any norm, and a factor
 * where the model has it before the product. Attention is computed of the changed one.
 */
export function query(layer: number, head: number | "all"): Site {
  return new Site(SiteKind.QUERY, layer, requireHead(head));
}

/**
 * The key of a head, or of all, as queries are multiplied with it [pos d_head]: after rotary embeddings and any norm. Where
 * query heads share them (grouped queries) there are fewer.
 */
export function key(layer: number, head: number | "all"): Site {
  return new Site(SiteKind.KEY, layer, requireHead(head));
}

/** The value of a head, or of all, which its pattern mixes [pos d_head]. There are as many as keys. */
export function value(layer: number, head: number | "all"): Site {
  return new Site(SiteKind.VALUE, layer, requireHead(head));
}

/**
 * Activations of neurons right after the activation function, gated: act(gate) * up [pos neuron].
 *
 * @param neurons their indices, or "all" of the layer.
 * @throws InvalidRequestError an empty list.
 */
export function neurons(layer: number, neurons: "all" | readonly number[]): Site {
  if (neurons === "all") {
    return new Site(SiteKind.NEURONS, layer);
  }
  if (!Array.isArray(neurons) || neurons.length === 0) {
    throw new InvalidRequestError('neurons must be "all", or an array that names at least one');
  }
  const chosen = neurons.map((neuron: unknown) => requireInt32("neurons", neuron));
  return new Site(SiteKind.NEURONS, layer, undefined, chosen);
}
