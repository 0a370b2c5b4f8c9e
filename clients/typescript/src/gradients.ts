/** Gradients of one number of each row by what stands at sites of its run: one pass there and back, next to the weights. */

import { create } from "@bufbuild/protobuf";
import type { RemoteTransparentLlm } from "./client.js";
import { InvalidRequestError, TooLargeError } from "./errors.js";
import { ExpectedGradients, type ExpectedTensor } from "./expected_gradients.js";
import {
  GradientForm as Form,
  FrozenPart as Frozen,
  type GradientsRequest,
  GradientsRequestSchema,
} from "./gen/transparent_llm/v1/gradients_pb.js";
import { SiteKind } from "./gen/transparent_llm/v1/interventions_pb.js";
import {
  checkedEdges,
  EDGE_AXES,
  type EdgeScores,
  edgesToWire,
  type GradientEdges,
  lengthsOfEdges,
} from "./gradient_edges.js";
import { type CheckedPath, checkedPath, type GradientPath, pathToWire } from "./gradient_path.js";
import { requireChosen, requireInt32 } from "./interventions/checks.js";
import { checkedEdits, type Edit } from "./interventions/edit.js";
import { Site } from "./interventions/site.js";
import { Metric } from "./interventions/sweep.js";
import { type RunIdOf, requireSite } from "./interventions/vector.js";
import { quoted } from "./legible.js";
import type { CallOptions, Progress } from "./options.js";
import type { Run } from "./run.js";
import type { ModelDescription } from "./server_info.js";
import type { Tensor } from "./tensor.js";

const [MOST_SITES, MOST_SOURCES] = [4096, 16];
/** Of a tensor's name, in characters. */
const LONGEST_NAME = 128;

/**
 * What is told of a gradient g by a tensor a: "gradient", g itself; "times_activation", a times g, summed over the last axis;
 * "times_difference", (a of another run - a) times g, summed likewise; "norm", the length of g along the last axis. Neurons
 * and sources of a pattern are numbers of their own, and not summed over.
 */
export type GradientForm = "gradient" | "times_activation" | "times_difference" | "norm";

/**
 * A constant of the backward pass: attention patterns; what norms divide by; queries, keys and values; activations of
 * neurons. All four: what is left is the direct effect on the output, by the residual stream alone.
 */
export type FrozenPart = "patterns" | "norm_scales" | "attention" | "neurons";

/** The gradient by one tensor. */
export interface GradientSite {
  readonly site: Site;
  /** Default: "gradient". */
  readonly form?: GradientForm | undefined;
  /** Of "times_difference": an object whose current run is the other one, of rows that have as many tokens. */
  readonly source?: RemoteTransparentLlm | undefined;
  /** Its rows, one for each row that is differentiated. Default: the same. */
  readonly sourceRows?: readonly number[] | undefined;
}

/** What is differentiated by what: by `sites`, along one `path`, or of `edges`. */
export interface GradientsPlan {
  /** Of each row, differentiated by what that row has. Made by the functions of `transparent-llm/interventions`. */
  readonly metric: Metric;
  /** 1 to 4096; none where there is a path, or edges. */
  readonly sites?: readonly (GradientSite | Site)[] | undefined;
  /** Of the run. Default: all. */
  readonly rows?: readonly number[] | undefined;
  readonly frozen?: readonly FrozenPart[] | undefined;
  /** Integrated gradients instead of sites. */
  readonly path?: GradientPath | undefined;
  /**
   * Of the run as it is differentiated, whose rows and positions are those of the whole run. The gradient goes through what they
   * do; what they set is a constant. What stands at a site, and the gradient by it, are those after the edits there.
   */
  readonly edits?: readonly Edit[] | undefined;
  /** Edges between parts instead of sites, without edits and of a metric of logits. */
  readonly edges?: GradientEdges | undefined;
}

/** Of the call. */
export interface GradientsOptions extends CallOptions {
  /** Called after each message of the transfer. */
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

/** Along a path. */
export interface IntegratedGradients {
  /** What the metric is at the baseline. [batch] F64 */
  readonly baselineMetric: Tensor;
  /** The sum of the gradients, less the difference of the two metrics: 0 were the rule exact. [batch] F64 */
  readonly delta: Tensor;
  /** (x - baseline) times the mean gradient, on the axes of a gradient by the site: [batch pos d_model]. F32 */
  readonly values: Tensor;
}

/** An answer. Values at padding are 0. */
export interface Gradients {
  /** Of each row. [batch] F64 */
  readonly metric: Tensor;
  /** For each site, in their order, what is told of it. F32 */
  readonly sites: readonly Tensor[];
  /** Where there is a path. */
  readonly integrated?: IntegratedGradients | undefined;
  /** Where edges are asked for. */
  readonly edges?: EdgeScores | undefined;
}

const FORMS: Readonly<Record<GradientForm, Form>> = {
  gradient: Form.GRADIENT,
  times_activation: Form.TIMES_ACTIVATION,
  times_difference: Form.TIMES_DIFFERENCE,
  norm: Form.NORM,
};
const FROZEN: Readonly<Record<FrozenPart, Frozen>> = {
  patterns: Frozen.PATTERNS,
  norm_scales: Frozen.NORM_SCALES,
  attention: Frozen.ATTENTION,
  neurons: Frozen.NEURONS,
};

/** Of what is told of a site of all heads, or of neurons; of one head without that axis. */
const AXES: ReadonlyMap<SiteKind, readonly string[]> = new Map([
  [SiteKind.HEAD, ["batch", "pos", "head", "d_head"]],
  [SiteKind.QUERY, ["batch", "pos", "head", "d_head"]],
  [SiteKind.KEY, ["batch", "pos", "kv_head", "d_head"]],
  [SiteKind.VALUE, ["batch", "pos", "kv_head", "d_head"]],
  [SiteKind.PATTERN, ["batch", "head", "query_pos", "key_pos"]],
  [SiteKind.NEURONS, ["batch", "pos", "neuron"]],
]);

type CheckedSite = GradientSite & { readonly form: GradientForm };

/** What is asked for, checked, and what must come for it. */
export class Differentiation {
  readonly #metric: Metric;
  readonly #sites: readonly CheckedSite[];
  readonly #rows: readonly number[];
  readonly #frozen: readonly FrozenPart[];
  readonly #path: CheckedPath | undefined;
  readonly #edits: readonly Edit[];
  readonly #edges: GradientEdges | undefined;

  /**
   * @throws InvalidRequestError something that makes no sense.
   * @throws TooLargeError too many sites, other runs or edits.
   */
  constructor({ metric, sites = [], rows, frozen = [], path, edits = [], edges }: GradientsPlan) {
    if (!(metric instanceof Metric)) {
      throw new InvalidRequestError("gradients are of a metric such as logit(5, { pos: -1 })");
    }
    const kinds = [Array.isArray(sites) && sites.length > 0, path !== undefined, edges !== undefined];
    if (!Array.isArray(sites) || kinds.filter(Boolean).length !== 1) {
      throw new InvalidRequestError(
        "gradients are by an array of sites, along one path, or of edges: give one of them",
      );
    }
    requireFew("sites", sites.length, MOST_SITES);
    [this.#metric, this.#sites, this.#frozen] = [metric, sites.map(checkedSite), checkedFrozen(frozen)];
    const others = new Set(this.#sites.map(({ source }) => source).filter((source) => source !== undefined));
    requireFew("other runs", others.size, MOST_SOURCES);
    this.#rows = rows === undefined ? [] : requireChosen("rows", rows, []);
    [this.#path, this.#edits] = [path && checkedPath(path), checkedEdits(edits)];
    this.#edges = edges === undefined ? undefined : checkedEdges(edges, metric, this.#edits);
  }

  /** Objects whose current runs are meant. */
  get sources(): readonly RemoteTransparentLlm[] {
    const baseline = this.#path?.baseline;
    const others = [...(typeof baseline === "object" ? [baseline] : []), ...(this.#edges ? [this.#edges.source] : [])];
    const ofSites = this.#sites.flatMap(({ source }) => source ?? []);
    return [...this.#metric.sources, ...ofSites, ...others, ...this.#edits.flatMap(({ sources }) => sources)];
  }

  request(runId: string, runIdOf: RunIdOf): GradientsRequest {
    return create(GradientsRequestSchema, {
      ...{ runId, rows: [...this.#rows], frozen: this.#frozen.map((part) => FROZEN[part]) },
      metric: this.#metric.toWire(runIdOf),
      sites: this.#sites.map(({ site, form, source, sourceRows = [] }) => ({
        ...{ site: site.wire, form: FORMS[form], sourceRows: [...sourceRows] },
        runId: source === undefined ? "" : runIdOf(source),
      })),
      ...(this.#path && { path: pathToWire(this.#path, runIdOf) }),
      edits: this.#edits.map((edit) => edit.toWire(runIdOf)),
      ...(this.#edges && { edges: edgesToWire(this.#edges, runIdOf) }),
    });
  }

  /** What must come, of this run and, where it is known, of this model. */
  expected(run: Run, model: ModelDescription | undefined): ExpectedGradients {
    const lengths = lengthsOf(run, this.#rows, model);
    const ofRows = (name: string): ExpectedTensor => ({ name, dims: ["batch"], dtype: "F64", lengths });
    if (this.#path !== undefined) {
      const dims = dimsOf(this.#path.site, "gradient");
      const values: ExpectedTensor = { name: "integrated_gradients", dims, dtype: "F32", lengths };
      return new ExpectedGradients([ofRows("metric"), ofRows("baseline_metric"), ofRows("delta"), values]);
    }
    if (this.#edges !== undefined) {
      const all = new Map([...lengths, ...lengthsOfEdges(model)]);
      const scores = Object.entries(EDGE_AXES).map(
        ([name, dims]): ExpectedTensor => ({ name, dims, dtype: "F32", lengths: all }),
      );
      return new ExpectedGradients([ofRows("metric"), ...scores]);
    }
    const ofSites = this.#sites.map(({ site, form }): ExpectedTensor => {
      const neurons = site.wire.neurons.length || model?.dFfn.at(site.wire.layer);
      const ofSite = neurons ? new Map([...lengths, ["neuron", neurons]]) : lengths;
      return { name: `${site}`.slice(0, LONGEST_NAME), dims: dimsOf(site, form), dtype: "F32", lengths: ofSite };
    });
    return new ExpectedGradients([ofRows("metric"), ...ofSites]);
  }

  /** The answer of what came. */
  answered(tensors: readonly Tensor[]): Gradients {
    const [metric, ...rest] = tensors as [Tensor, ...Tensor[]];
    if (this.#edges !== undefined) {
      const [query, key, value, ffn, logits] = rest as [Tensor, Tensor, Tensor, Tensor, Tensor];
      return { metric, sites: [], edges: { query, key, value, ffn, logits } };
    }
    if (this.#path === undefined) {
      return { metric, sites: rest };
    }
    const [baselineMetric, delta, values] = rest as [Tensor, Tensor, Tensor];
    return { metric, sites: [], integrated: { baselineMetric, delta, values } };
  }
}

/** Of rows, positions and the model; where rows are chosen, positions are as many as the longest of them has. */
function lengthsOf(
  { tokens, mask }: Run,
  rows: readonly number[],
  model: ModelDescription | undefined,
): ReadonlyMap<string, number> {
  const [batch, nPos] = tokens.shape as [number, number];
  const chosen = rows.map((row) => (row < 0 ? row + batch : row));
  const pos =
    mask === undefined || chosen.length === 0
      ? nPos
      : Math.max(
          ...chosen.map((row) => mask.bytes.subarray(row * nPos, (row + 1) * nPos).reduce((sum, x) => sum + x, 0)),
        );
  const ofRun = ["pos", "query_pos", "key_pos"].map((axis): [string, number] => [axis, pos]);
  const ofModel: [string, number][] = model?.dModel
    ? [
        ["head", model.nHeads],
        ["d_model", model.dModel],
      ]
    : [];
  return new Map([["batch", rows.length || batch], ...ofRun, ...ofModel]);
}

/** The axes of what is told of a site. */
function dimsOf(site: Site, form: GradientForm): readonly string[] {
  const { kind, head } = site.wire;
  const all = AXES.get(kind) ?? ["batch", "pos", "d_model"];
  const dims = head === undefined ? all : all.filter((axis) => axis !== "head" && axis !== "kv_head");
  return form === "gradient" || kind === SiteKind.NEURONS || kind === SiteKind.PATTERN ? dims : dims.slice(0, -1);
}

function checkedSite(given: GradientSite | Site): CheckedSite {
  const { site, form = "gradient", source, sourceRows } = given instanceof Site ? { site: given } : given;
  requireSite(site);
  requireChoice("form", form, FORMS);
  const hasSource = source !== undefined || sourceRows !== undefined;
  if ((form === "times_difference") !== hasSource || (hasSource && source === undefined)) {
    const word = form === "times_difference" ? "needs a" : "has no";
    throw new InvalidRequestError(`a gradient of form "${form}" ${word} source`);
  }
  return { site, form, source, sourceRows: sourceRows?.map((row) => requireInt32("sourceRows", row)) };
}

function checkedFrozen(frozen: readonly FrozenPart[]): readonly FrozenPart[] {
  if (!Array.isArray(frozen)) {
    throw new InvalidRequestError('frozen is an array such as ["patterns", "norm_scales"]');
  }
  for (const part of frozen) {
    requireChoice("frozen", part, FROZEN);
  }
  if (new Set(frozen).size !== frozen.length) {
    throw new InvalidRequestError("frozen names a part twice");
  }
  return [...frozen];
}

function requireChoice(name: string, given: unknown, choices: object): void {
  if (typeof given !== "string" || !Object.hasOwn(choices, given)) {
    const known = Object.keys(choices).map((choice) => `"${choice}"`);
    throw new InvalidRequestError(`${name} must be one of ${known.join(", ")}, got ${quoted(String(given))}`);
  }
}

function requireFew(what: string, count: number, most: number): void {
  if (count > most) {
    throw new TooLargeError(`gradients by ${count} ${what}, at most ${most} can be asked for at once`, {
      metadata: { needed: String(count), allowed: String(most) },
    });
  }
}
