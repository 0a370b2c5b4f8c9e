/** Edits of a recipe as the client makes them. */

import {
  add,
  attnOut,
  type Edit,
  ffnOut,
  head,
  neurons,
  patch,
  pattern,
  residualAfterAttn,
  residualIn,
  residualOut,
  type Site,
  scale,
  unembedding,
  type Where,
} from "transparent-llm/interventions";
import { InvalidRequestError, type RemoteTransparentLlm } from "transparent-llm/web";
import type { EditSpec, SiteSpec } from "../recipe/recipe.js";

/**
 * For a run of one row.
 *
 * @param source what edits that patch take from.
 * @throws InvalidRequestError one patches, and there is no source.
 */
export function editsOf(specs: readonly EditSpec[], source?: RemoteTransparentLlm): Edit[] {
  return specs.map((spec) => editOf(spec, source));
}

function editOf(spec: EditSpec, source: RemoteTransparentLlm | undefined): Edit {
  const site = siteOf(spec.site);
  const where: Where = { positions: spec.positions, rows: "all" };
  switch (spec.op) {
    case "scale":
      return scale(site, spec.factor, where);
    case "steer":
      return add(site, unembedding(spec.token), { ...where, factor: spec.factor, relative: true });
    case "patch": {
      if (source === undefined) {
        throw new InvalidRequestError("there is nothing to patch from: run another sentence first");
      }
      const { sourcePositions } = spec;
      return patch(site, source, { ...where, ...(sourcePositions === undefined ? {} : { sourcePositions }) });
    }
  }
}

function siteOf({ kind, layer, head: index, neurons: chosen }: SiteSpec): Site {
  switch (kind) {
    case "residual_in":
      return residualIn(layer);
    case "residual_after_attn":
      return residualAfterAttn(layer);
    case "residual_out":
      return residualOut(layer);
    case "attn_out":
      return attnOut(layer);
    case "ffn_out":
      return ffnOut(layer);
    case "head":
      return head(layer, index ?? 0);
    case "pattern":
      return pattern(layer, index ?? 0);
    case "neurons":
      return neurons(layer, chosen ?? "all");
  }
}
