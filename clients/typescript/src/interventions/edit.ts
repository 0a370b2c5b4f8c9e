/** One change of a run: a site, the elements of it, and what becomes of them. */

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import type { RemoteTransparentLlm } from "../client.js";
import { InvalidRequestError, TooLargeError } from "../errors.js";
import { type Intervention, InterventionSchema } from "../gen/transparent_llm/v1/interventions_pb.js";
import type { Tensor } from "../tensor.js";
import { requireChosen, requireFinite, requireInt32, requireInt64 } from "./checks.js";
import type { Site } from "./site.js";
import { featureOf, type RunIdOf, requireSite, type Vector, vectorOf } from "./vector.js";

/** Edits of one run. */
const MOST_EDITS = 512;

type WireEdit = MessageInitShape<typeof InterventionSchema>;
type Operation = Exclude<WireEdit["operation"], undefined>;
type Numbers = Vector | Tensor | ArrayLike<number>;

/** The elements that are changed. Both are always said: nothing is edited everywhere unasked. */
export interface Where {
  /** Of each row: all its tokens, its last one, or these; negative ones count from its last token. */
  readonly positions: "all" | "last" | readonly number[];
  /** Of the batch. */
  readonly rows: "all" | readonly number[];
}

/** All tokens of all rows. */
export const EVERYWHERE: Where = Object.freeze({ positions: "all", rows: "all" });

/** A change of a run. Made by the functions of this module, which check it. */
export class Edit {
  /** @internal */
  readonly toWire: (runIdOf: RunIdOf) => Intervention;
  /** @internal Objects whose current runs are meant. */
  readonly sources: readonly RemoteTransparentLlm[];

  /** @internal */
  constructor(
    site: Site,
    where: Where,
    operation: (runIdOf: RunIdOf) => Operation,
    sources: readonly RemoteTransparentLlm[] = [],
  ) {
    const fixed = { site: requireSite(site).wire, ...selectors(where) };
    this.toWire = (runIdOf) => create(InterventionSchema, { ...fixed, operation: operation(runIdOf) });
    this.sources = sources;
  }
}

/** Zero ablation. */
export function zero(site: Site, where: Where): Edit {
  return scale(site, 0, where);
}

/** Times a factor. */
export function scale(site: Site, factor: number, where: Where): Edit {
  const value = { factor: requireFinite("factor", factor) };
  return new Edit(site, where, () => ({ case: "scale", value }));
}

/** Add a vector times `factor`, 1 if absent (steering); `relative`: times norm(x) / norm(vector) too. */
export function add(
  site: Site,
  vector: Numbers,
  where: Where & { readonly factor?: number; readonly relative?: boolean },
): Edit {
  const v = vectorOf(vector);
  const fixed = { factor: requireFinite("factor", where.factor ?? 1), relative: where.relative === true };
  return new Edit(site, where, (of) => ({ case: "add", value: { ...fixed, vector: v.toWire(of) } }), v.sources);
}

/** A vector [d], or a row for each selected position [n d], instead of what is there. */
export function setTo(site: Site, vector: Numbers, where: Where): Edit {
  const v = vectorOf(vector);
  return new Edit(site, where, (of) => ({ case: "set", value: { vector: v.toWire(of) } }), v.sources);
}

/** Mean ablation: the mean over all tokens of the current run of `source`. */
export function mean(site: Site, source: RemoteTransparentLlm, where: Where): Edit {
  return new Edit(site, where, (of) => ({ case: "mean", value: { runId: of(source) } }), [source]);
}

/**
 * What the current run of `source` has at the same site, with its own edits (activation patching). Where `positions`
 * or `rows` are arrays, `sourcePositions` and `sourceRows` say those of the source in their places; absent: the same.
 */
export function patch(
  site: Site,
  source: RemoteTransparentLlm,
  where: Where & { readonly sourcePositions?: readonly number[]; readonly sourceRows?: readonly number[] },
): Edit {
  const sourceRows = mapped("sourceRows", where.sourceRows, where.rows);
  const sourcePositions = mapped("sourcePositions", where.sourcePositions, where.positions);
  const fixed = { ...(sourceRows && { sourceRows }), ...(sourcePositions && { sourcePositions }) };
  return new Edit(site, where, (of) => ({ case: "patch", value: { ...fixed, runId: of(source) } }), [source]);
}

/** Scale the part along a direction by `factor`; absent: remove it. */
export function project(site: Site, vector: Numbers, where: Where & { readonly factor?: number }): Edit {
  const v = vectorOf(vector);
  const factor = requireFinite("factor", where.factor ?? 0);
  return new Edit(site, where, (of) => ({ case: "project", value: { factor, vector: v.toWire(of) } }), v.sources);
}

/** Bring the coordinate along a direction between two bounds, of which one may be infinite. */
export function clamp(
  site: Site,
  vector: Numbers,
  where: Where & { readonly least: number; readonly most: number },
): Edit {
  const v = vectorOf(vector);
  const { least, most } = boundsOf(where);
  return new Edit(site, where, (of) => ({ case: "clamp", value: { least, most, vector: v.toWire(of) } }), v.sources);
}

/**
 * Bring the activation of a feature of a sparse autoencoder between two bounds, of which one may be infinite. What the
 * sparse autoencoder does not account for stays.
 *
 * @param site that of the sparse autoencoder.
 * @param sae its name on the server; `serverInfo` has them.
 * @param feature its index; negative ones count from the end.
 */
export function clampFeature(
  site: Site,
  sae: string,
  feature: number,
  where: Where & { readonly least: number; readonly most: number },
): Edit {
  const value = { ...featureOf(sae, feature), ...boundsOf(where) };
  return new Edit(site, where, () => ({ case: "clampFeature", value }));
}

/** Turn what is along one direction to another. */
export function swap(site: Site, origin: Numbers, target: Numbers, where: Where): Edit {
  const [from, to] = [vectorOf(origin), vectorOf(target)];
  const operation = (of: RunIdOf): Operation => ({
    case: "swap",
    value: { origin: from.toWire(of), target: to.toWire(of) },
  });
  return new Edit(site, where, operation, [...from.sources, ...to.sources]);
}

/** Add normal noise, the same for the same seed on every machine, whatever else the batch has. */
export function noise(site: Site, where: Where & { readonly sd: number; readonly seed: number | bigint }): Edit {
  const value = { sd: requireFinite("sd", where.sd), seed: requireInt64("seed", where.seed) };
  if (value.sd < 0) {
    throw new InvalidRequestError(`sd is ${value.sd}: a standard deviation is 0 or more`);
  }
  return new Edit(site, where, () => ({ case: "noise", value }));
}

/**
 * What a run is given as edits, in an array of its own.
 *
 * @throws InvalidRequestError something else than edits in an array.
 * @throws TooLargeError TOO_LONG: too many.
 */
export function checkedEdits(edits: unknown): readonly Edit[] {
  if (!Array.isArray(edits) || !edits.every((edit) => edit instanceof Edit)) {
    throw new InvalidRequestError("edits is an array of edits such as zero(head(5, 1), EVERYWHERE)");
  }
  if (edits.length > MOST_EDITS) {
    throw new TooLargeError(`${edits.length} edits of one run, at most ${MOST_EDITS} can be made`, {
      reason: "TOO_LONG",
      metadata: { needed: String(edits.length), allowed: String(MOST_EDITS) },
    });
  }
  return [...edits];
}

function boundsOf({ least, most }: { least: number; most: number }): { least: number; most: number } {
  if (typeof least !== "number" || typeof most !== "number" || !(least <= most)) {
    throw new InvalidRequestError(`clamp between ${least} and ${most}: the first must not be over the second`);
  }
  return { least, most };
}

function selectors(where: Where): Pick<WireEdit, "positions" | "rows"> & object {
  if (typeof where !== "object" || where === null) {
    throw new InvalidRequestError("an edit says its positions and rows: EVERYWHERE, or { positions, rows }");
  }
  const { positions, rows } = where;
  return {
    positions:
      positions === "all"
        ? { case: "allPositions", value: true }
        : positions === "last"
          ? { case: "lastPosition", value: true }
          : {
              case: "chosenPositions",
              value: { indices: requireChosen("positions", positions, ["all", "last"]) },
            },
    rows:
      rows === "all"
        ? { case: "allRows", value: true }
        : { case: "chosenRows", value: { indices: requireChosen("rows", rows, ["all"]) } },
  };
}

/** Indices of the source in the places of those that are changed. */
function mapped(name: string, given: readonly number[] | undefined, of: string | readonly number[]) {
  if (given === undefined) {
    return undefined;
  }
  if (!Array.isArray(given) || typeof of === "string" || of.length !== given.length) {
    const changed = typeof of === "string" ? of : of.length;
    throw new InvalidRequestError(`${name} has ${given.length} entries for ${changed} that are changed: name as many`);
  }
  return { indices: given.map((index: unknown) => requireInt32(name, index)) };
}
