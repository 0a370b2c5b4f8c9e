/** Edges between parts of a model, by attribution patching, for all of them at once. */

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { RemoteTransparentLlm } from "./client.js";
import { InvalidRequestError } from "./errors.js";
import type { GradientEdgesSchema } from "./gen/transparent_llm/v1/gradients_pb.js";
import { MOST_STEPS } from "./gradient_path.js";
import { requireInt32 } from "./interventions/checks.js";
import type { Edit } from "./interventions/edit.js";
import type { Metric } from "./interventions/sweep.js";
import type { RunIdOf } from "./interventions/vector.js";
import { requireWithin } from "./parameters.js";
import type { ModelInfo } from "./server_info.js";
import { indexIn, type Tensor } from "./tensor.js";

/**
 * Edges: what a sender adds to the residual stream in another run, less what it adds in this one, times the gradient by the
 * stream as one receiver alone reads it, through its norm.
 */
export interface GradientEdges {
  /** An object whose current run is the other one, such as the corrupt one, of rows that have as many tokens. */
  readonly source: RemoteTransparentLlm;
  /** Its rows, one for each row that is differentiated. Default: the same. */
  readonly sourceRows?: readonly number[] | undefined;
  /**
   * 0, the default: the gradient of this run (EAP). Else, up to 1000, the mean of those at so many nodes on the straight way from
   * the embedding of this run to that of the other (EAP-IG).
   */
  readonly steps?: number | undefined;
}

/**
 * Of edges, F32; 0 where a sender does not come before a receiver. Senders are the embedding, then, layer by layer, each head and
 * the feed-forward part.
 */
export interface EdgeScores {
  /** [batch sender layer head] */
  readonly query: Tensor;
  /** [batch sender layer kv_head] */
  readonly key: Tensor;
  /** [batch sender layer kv_head] */
  readonly value: Tensor;
  /** [batch sender layer] */
  readonly ffn: Tensor;
  /** [batch sender] */
  readonly logits: Tensor;
}

/** One of them. Parts are named as sites are: "residual_in(0)", "head(1, 2)", "ffn_out(1)"; "query(1, 2)", "ffn(1)", "logits". */
export interface ScoredEdge {
  readonly sender: string;
  readonly receiver: string;
  readonly score: number;
}

/** Of each of the tensors, in the order in which they come. */
export const EDGE_AXES: Readonly<Record<keyof EdgeScores, readonly string[]>> = {
  query: ["batch", "sender", "layer", "head"],
  key: ["batch", "sender", "layer", "kv_head"],
  value: ["batch", "sender", "layer", "kv_head"],
  ffn: ["batch", "sender", "layer"],
  logits: ["batch", "sender"],
};

/** @throws InvalidRequestError something that makes no sense. */
export function checkedEdges(edges: GradientEdges, metric: Metric, edits: readonly Edit[]): GradientEdges {
  if (typeof edges !== "object" || edges === null) {
    throw new InvalidRequestError("edges are of another run: { source }");
  }
  if (edits.length > 0 || metric.isOfStream) {
    throw new InvalidRequestError("edges are of a run without edits, and of a metric of logits");
  }
  const { source, sourceRows, steps = 0 } = edges;
  return {
    source,
    sourceRows: sourceRows?.map((row) => requireInt32("sourceRows", row)),
    steps: requireWithin("steps", steps, 0, MOST_STEPS),
  };
}

/** As a request has it. */
export function edgesToWire(
  { source, sourceRows = [], steps = 0 }: GradientEdges,
  runIdOf: RunIdOf,
): MessageInitShape<typeof GradientEdgesSchema> {
  return { runId: runIdOf(source), sourceRows: [...sourceRows], steps };
}

/** Of the axes of scores, where the model is known. */
export function lengthsOfEdges(model: ModelInfo | undefined): [string, number][] {
  if (!model?.nLayers || !model.nHeads) {
    return [];
  }
  return [
    ["layer", model.nLayers],
    ["sender", 1 + model.nLayers * (model.nHeads + 1)],
  ];
}

/**
 * The edges of a row with the largest scores, of whichever sign, the largest first.
 *
 * @throws InvalidRequestError less than one is asked for.
 * @throws IndexOutOfRangeError no such row.
 */
export function topEdges(scores: EdgeScores, k = 20, row = 0): ScoredEdge[] {
  const [batch, nSenders, nLayers, nHeads] = scores.query.shape as [number, number, number, number];
  const at = indexIn("row", batch, row);
  requireWithin("k", k, 1, 2 ** 31 - 1);
  const senders = ["residual_in(0)"];
  const columns: { receiver: string; score: (sender: number) => number }[] = [];
  for (let layer = 0; layer < nLayers; layer++) {
    senders.push(...Array.from({ length: nHeads }, (_, head) => `head(${layer}, ${head})`), `ffn_out(${layer})`);
    for (const name of ["query", "key", "value"] as const) {
      for (let head = 0; head < (scores[name].shape[3] as number); head++) {
        const score = (sender: number): number => scores[name].at(at, sender, layer, head);
        columns.push({ receiver: `${name}(${layer}, ${head})`, score });
      }
    }
    columns.push({ receiver: `ffn(${layer})`, score: (sender) => scores.ffn.at(at, sender, layer) });
  }
  columns.push({ receiver: "logits", score: (sender) => scores.logits.at(at, sender) });
  const found = senders
    .slice(0, nSenders)
    .flatMap((sender, i) => columns.map(({ receiver, score }) => ({ sender, receiver, score: score(i) })));
  return found.sort((one, other) => Math.abs(other.score) - Math.abs(one.score)).slice(0, k);
}
