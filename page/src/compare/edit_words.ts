/** Edits in words. */

import type { EditSpec, SiteSpec } from "../recipe/recipe.js";

const MOST_NAMED = 8;

/** An edit, as a sentence without an end. */
export function editWords(spec: EditSpec, tokenOf: (id: number) => string): string {
  const [site, at] = [siteWords(spec.site), positionWords(spec.positions)];
  switch (spec.op) {
    case "scale":
      return spec.factor === 0 ? `Ablate ${site} ${at}` : `Scale ${site} ${at} by ${spec.factor}`;
    case "patch": {
      const from = spec.sourcePositions === undefined ? "" : ` ${positionWords(spec.sourcePositions)}`;
      return `Patch ${site} ${at} from the other sentence${from}`;
    }
    case "steer":
      return `Steer ${site} ${at} toward ${tokenOf(spec.token)}, ${spec.factor} times its norm`;
  }
}

/** A site in words. */
export function siteWords({ kind, layer, head, neurons }: SiteSpec): string {
  switch (kind) {
    case "residual_in":
      return `the stream into layer ${layer}`;
    case "residual_after_attn":
      return `the stream after attention of layer ${layer}`;
    case "residual_out":
      return `the stream after layer ${layer}`;
    case "attn_out":
      return `attention of layer ${layer}`;
    case "ffn_out":
      return `feed-forward of layer ${layer}`;
    case "head":
      return `head ${head ?? 0} of layer ${layer}`;
    case "pattern":
      return `the pattern of head ${head ?? 0} of layer ${layer}`;
    case "neurons":
      return neurons === undefined
        ? `all neurons of layer ${layer}`
        : `${neurons.length === 1 ? "neuron" : "neurons"} ${listed(neurons)} of layer ${layer}`;
  }
}

function positionWords(positions: EditSpec["positions"]): string {
  if (positions === "all") {
    return "at all tokens";
  }
  return positions === "last" ? "at the last token" : `at ${listed(positions)}`;
}

function listed(indices: readonly number[]): string {
  const rest = indices.length - MOST_NAMED;
  const named = indices.slice(0, MOST_NAMED).join(", ");
  return rest > 0 ? `${named} and ${rest} more` : named;
}
