/** The straight way along which integrated gradients are averaged. */

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { RemoteTransparentLlm } from "./client.js";
import { InvalidRequestError } from "./errors.js";
import type { GradientPathSchema } from "./gen/transparent_llm/v1/gradients_pb.js";
import { SiteKind } from "./gen/transparent_llm/v1/interventions_pb.js";
import { requireInt32 } from "./interventions/checks.js";
import { residualIn, type Site } from "./interventions/site.js";
import { type RunIdOf, requireSite } from "./interventions/vector.js";
import { requireWithin } from "./parameters.js";

/** Of one path, or of edges along one. */
export const MOST_STEPS = 1000;

const KINDS: ReadonlySet<SiteKind> = new Set([
  SiteKind.RESIDUAL_IN,
  SiteKind.RESIDUAL_OUT,
  SiteKind.ATTN_OUT,
  SiteKind.FFN_OUT,
  SiteKind.HEAD,
]);

/** The straight way from a baseline to what the run has at a site, after the edits there, along which gradients are averaged. */
export interface GradientPath {
  /**
   * "zero": zeros; what the model has at the site, without edits, where a token, by its id, stands at all positions; or what an
   * object's current run has there, of as many rows, each of as many tokens.
   */
  readonly baseline: "zero" | number | RemoteTransparentLlm;
  /** Nodes of the Gauss-Legendre rule, 1 to 1000. Default: 50. */
  readonly steps?: number | undefined;
  /** `residualIn`, `residualOut`, `attnOut`, `ffnOut` or `head`, at all positions. Default: `residualIn(0)`, the embedding. */
  readonly site?: Site | undefined;
}

/** With everything that has a default. */
export type CheckedPath = GradientPath & { readonly steps: number; readonly site: Site };

/** @throws InvalidRequestError something that makes no sense. */
export function checkedPath({ baseline, steps = 50, site = residualIn(0) }: GradientPath): CheckedPath {
  if (baseline !== "zero" && !Number.isInteger(baseline) && (typeof baseline !== "object" || baseline === null)) {
    throw new InvalidRequestError('the baseline of a path is "zero", the id of a token, or an object with a run');
  }
  if (!KINDS.has(requireSite(site).wire.kind)) {
    throw new InvalidRequestError(`there is no path at ${site}: name residualIn, residualOut, attnOut, ffnOut or head`);
  }
  return {
    baseline: typeof baseline === "number" ? requireInt32("baseline", baseline) : baseline,
    steps: requireWithin("steps", steps, 1, MOST_STEPS),
    site,
  };
}

/** As a request has it. */
export function pathToWire(
  { baseline, steps, site }: CheckedPath,
  runIdOf: RunIdOf,
): MessageInitShape<typeof GradientPathSchema> {
  const fixed = { steps, site: site.wire };
  if (baseline === "zero") {
    return { ...fixed, baseline: { case: "zero", value: true } };
  }
  return typeof baseline === "number"
    ? { ...fixed, baseline: { case: "tokenId", value: baseline } }
    : { ...fixed, baseline: { case: "runId", value: runIdOf(baseline) } };
}
