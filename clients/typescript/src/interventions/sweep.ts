/** Sweeps: the same changes of a run at one place after another, and the numbers that are looked at. */

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { StreamError } from "../assembler.js";
import type { RemoteTransparentLlm } from "../client.js";
import { InvalidRequestError, TooLargeError } from "../errors.js";
import {
  MetricKind,
  type SweepCellSchema,
  type SweepMetric,
  SweepMetricSchema,
  type SweepRequest,
  SweepRequestSchema,
  type SweepResponse,
} from "../gen/transparent_llm/v1/sweeps_pb.js";
import type { CallOptions } from "../options.js";
import { Tensor } from "../tensor.js";
import { requireChosen, requireInt32 } from "./checks.js";
import { checkedEdits, type Edit } from "./edit.js";
import type { Site } from "./site.js";
import { type RunIdOf, requireSite, type Vector, vectorOf } from "./vector.js";

const MOST_CELLS = 16_384;
const MOST_METRICS = 16;

type Fields = MessageInitShape<typeof SweepMetricSchema>;

/** A number of what a model makes of each row. Made by the functions of this module. */
export class Metric {
  /** @internal */
  readonly toWire: (runIdOf: RunIdOf) => SweepMetric;
  /** @internal */
  readonly sources: readonly RemoteTransparentLlm[];
  /** @internal Whether it is a number of the residual stream, and none of logits. */
  readonly isOfStream: boolean;

  /** @internal */
  constructor(
    toWire: (runIdOf: RunIdOf) => Fields,
    sources: readonly RemoteTransparentLlm[] = [],
    isOfStream: boolean = false,
  ) {
    this.toWire = (runIdOf) => create(SweepMetricSchema, toWire(runIdOf));
    this.sources = sources;
    this.isOfStream = isOfStream;
  }
}

/** The position of a metric; negative ones count from each row's last token. */
export interface At {
  readonly pos: number;
}

/** A token id for all rows, or one for each. */
export type Tokens = number | readonly number[];

/** The position of a metric of a token, and perhaps another token that it is less. */
export interface TokenAtPos extends At {
  readonly minus?: Tokens;
}

/** The logit of a token, or of it less another. */
export function logit(token: Tokens, at: TokenAtPos): Metric {
  return ofTokens(MetricKind.LOGIT, token, at);
}

/** The log-probability of the next token, natural, or of it less another. */
export function logProbability(token: Tokens, at: TokenAtPos): Metric {
  return ofTokens(MetricKind.LOGPROB, token, at);
}

/** The probability of the next token, or of it less another. */
export function probability(token: Tokens, at: TokenAtPos): Metric {
  return ofTokens(MetricKind.PROB, token, at);
}

/** The mean of -log p(next token) over the tokens of a row that another one follows, in nats. */
export function loss(): Metric {
  return new Metric(() => ({ kind: MetricKind.LOSS }));
}

/** KL(changed || run) of the next token, in nats: of the current run of an object, or without one of the base run. */
export function kl(at: At, run?: RemoteTransparentLlm): Metric {
  const pos = posOf(at);
  const toWire = (of: RunIdOf): Fields => ({ kind: MetricKind.KL, pos, ...(run !== undefined && { runId: of(run) }) });
  return new Metric(toWire, run === undefined ? [] : [run]);
}

/** Of the distribution of the next token, in nats. */
export function entropy(at: At): Metric {
  const pos = posOf(at);
  return new Metric(() => ({ kind: MetricKind.ENTROPY, pos }));
}

/** The product of the residual stream at a site and a direction, whose length is made 1. */
export function projection(site: Site, direction: Vector | Tensor | ArrayLike<number>, at: At): Metric {
  const [{ wire }, vector, pos] = [requireSite(site), vectorOf(direction), posOf(at)];
  const toWire = (of: RunIdOf): Fields => ({
    kind: MetricKind.PROJECTION,
    pos,
    site: wire,
    direction: vector.toWire(of),
  });
  return new Metric(toWire, vector.sources, true);
}

/** Coordinates, put in the places of those of each template; what is left out stays as it is there. */
export interface Cell {
  readonly layer?: number;
  readonly head?: number;
  readonly neurons?: readonly number[];
  /** Of a patch, those of its source too. */
  readonly positions?: readonly number[];
  /** Of a patch, the one row that all are taken from. */
  readonly sourceRow?: number;
}

/** What is changed, where, and what is measured. */
export interface SweepPlan {
  /** Made in every cell with its coordinates. */
  readonly templates: readonly Edit[];
  /** 1 to 16,384. */
  readonly cells: readonly Cell[];
  /** 1 to 16. */
  readonly metrics: readonly Metric[];
  /** Of the run, those that are swept. All, if left out. */
  readonly rows?: readonly number[];
  /** Made in every cell as they stand, before the templates. */
  readonly edits?: readonly Edit[];
}

/** Of the call. */
export interface SweepOptions extends CallOptions {
  /** Called after each part. */
  readonly onProgress?: ((progress: { readonly doneCells: number; readonly nCells: number }) => void) | undefined;
}

/** What a sweep gives, F64. */
export interface SweepValues {
  /** Of the run as it is, with the edits and without templates. [metric row] */
  readonly baselines: Tensor;
  /** [cell metric row] */
  readonly values: Tensor;
}

/** A sweep under way, which keeps what has come. */
export class Sweep {
  readonly #templates: readonly Edit[];
  readonly #edits: readonly Edit[];
  readonly #cells: readonly MessageInitShape<typeof SweepCellSchema>[];
  readonly #metrics: readonly Metric[];
  readonly #rows: readonly number[];
  readonly #waiting: Set<number>;
  #asked: readonly number[] = [];
  #nRows = 0;
  #hasBaselines = false;
  #baselines = new Float64Array();
  #values = new Float64Array();

  /**
   * @throws InvalidRequestError no cells, templates or metrics, or something else.
   * @throws TooLargeError too many of them.
   */
  constructor({ templates, cells, metrics, rows, edits }: SweepPlan) {
    requireCount("templates", templates);
    requireCount("cells", cells, MOST_CELLS);
    requireCount("metrics", metrics, MOST_METRICS);
    if (!metrics.every((metric) => metric instanceof Metric)) {
      throw new InvalidRequestError("metrics is an array of metrics such as logit(5, { pos: -1 })");
    }
    const made = checkedEdits([...templates, ...(edits ?? [])]);
    [this.#templates, this.#edits] = [made.slice(0, templates.length), made.slice(templates.length)];
    [this.#cells, this.#metrics] = [cells.map(cellOf), [...metrics]];
    this.#rows = rows === undefined ? [] : requireChosen("rows", rows, ["all"]);
    this.#waiting = new Set(cells.keys());
  }

  /** Objects whose current runs are meant. */
  get sources(): readonly RemoteTransparentLlm[] {
    return [...this.#edits, ...this.#templates, ...this.#metrics].flatMap(({ sources }) => sources);
  }

  get progress(): { doneCells: number; nCells: number } {
    return { doneCells: this.#cells.length - this.#waiting.size, nCells: this.#cells.length };
  }

  /** Ask for the cells that have not come, of a run of so many rows. */
  request(runId: string, batchSize: number, runIdOf: RunIdOf): SweepRequest {
    const nRows = this.#rows.length || batchSize;
    if (this.#nRows !== nRows) {
      this.#nRows = nRows;
      this.#baselines = new Float64Array(this.#metrics.length * nRows);
      this.#values = new Float64Array(this.#cells.length * this.#baselines.length);
    }
    [this.#asked, this.#hasBaselines] = [[...this.#waiting], false];
    return create(SweepRequestSchema, {
      runId,
      rows: [...this.#rows],
      edits: this.#edits.map((edit) => edit.toWire(runIdOf)),
      templates: this.#templates.map((edit) => edit.toWire(runIdOf)),
      cells: this.#asked.map((number) => this.#cells[number] ?? {}),
      metrics: this.#metrics.map((metric) => metric.toWire(runIdOf)),
    });
  }

  /**
   * Keep a message of the answer; whether it brought cells.
   *
   * @throws StreamError it is not what was to come.
   */
  take({ baselines, cells, values }: SweepResponse): boolean {
    const ofCell = this.#baselines.length;
    const numbers = cells.map((place) => this.#asked[place] ?? -1);
    const areWanted = numbers.every((number) => this.#waiting.has(number)) && new Set(numbers).size === numbers.length;
    if (
      !areWanted ||
      values.length !== cells.length * ofCell ||
      baselines.length !== (this.#hasBaselines ? 0 : ofCell)
    ) {
      throw new StreamError(
        `${baselines.length} baselines and ${values.length} values of ${cells.length} cells, for ` +
          `${this.#metrics.length} metrics, ${this.#nRows} rows and ${this.#waiting.size} cells that have not come`,
      );
    }
    if (!this.#hasBaselines) {
      this.#hasBaselines = true;
      this.#baselines.set(baselines);
    }
    numbers.forEach((number, place) => {
      this.#values.set(values.slice(place * ofCell, (place + 1) * ofCell), number * ofCell);
      this.#waiting.delete(number);
    });
    return numbers.length > 0;
  }

  /** @throws StreamError cells are missing. */
  result(): SweepValues {
    if (this.#waiting.size > 0) {
      throw new StreamError(`values of ${this.progress.doneCells} of ${this.#cells.length} cells`);
    }
    const shape = [this.#metrics.length, this.#nRows];
    return {
      baselines: tensorOf(this.#baselines, shape, ["metric", "row"]),
      values: tensorOf(this.#values, [this.#cells.length, ...shape], ["cell", "metric", "row"]),
    };
  }
}

function ofTokens(kind: MetricKind, token: Tokens, at: TokenAtPos): Metric {
  const [pos, tokenIds] = [posOf(at), idsOf("token", token)];
  const minusTokenIds = at.minus === undefined ? [] : idsOf("minus", at.minus);
  return new Metric(() => ({ kind, pos, tokenIds, minusTokenIds }));
}

function idsOf(name: string, given: Tokens): number[] {
  const ids = Array.isArray(given) ? given : [given];
  if (ids.length === 0) {
    throw new InvalidRequestError(`${name} is empty: give one token for all rows, or one for each`);
  }
  return ids.map((id: unknown) => requireInt32(name, id));
}

function posOf(at: At): number {
  return requireInt32("pos", at?.pos);
}

function cellOf({ layer, head, neurons, positions, sourceRow }: Cell): MessageInitShape<typeof SweepCellSchema> {
  return {
    ...(layer !== undefined && { layer: requireInt32("layer", layer) }),
    ...(head !== undefined && { head: requireInt32("head", head) }),
    ...(neurons !== undefined && { neurons: requireChosen("neurons", neurons, []) }),
    ...(positions !== undefined && { positions: requireChosen("positions", positions, []) }),
    ...(sourceRow !== undefined && { sourceRow: requireInt32("sourceRow", sourceRow) }),
  };
}

function requireCount(name: string, given: unknown, most = Number.POSITIVE_INFINITY): void {
  if (!Array.isArray(given) || given.length === 0) {
    throw new InvalidRequestError(`a sweep without ${name}: it has an array of at least one`);
  }
  if (given.length > most) {
    throw new TooLargeError(`a sweep with ${given.length} ${name}, at most ${most} can be at once`, {
      metadata: { needed: String(given.length), allowed: String(most) },
    });
  }
}

/** Of numbers, little-endian as tensors are. */
function tensorOf(numbers: Float64Array, shape: number[], dims: string[]): Tensor {
  const bytes = new Uint8Array(numbers.length * 8);
  const view = new DataView(bytes.buffer);
  numbers.forEach((number, i) => {
    view.setFloat64(i * 8, number, true);
  });
  return new Tensor({ dtype: "F64", shape, dims, bytes });
}
