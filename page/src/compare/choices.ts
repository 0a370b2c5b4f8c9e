/** Edits that fit to what of the graph is chosen. */

import type { GraphNode, Selection } from "../graph/selection.js";
import type { EditSpec, SiteKind, SiteSpec } from "../recipe/recipe.js";
import type { Pair } from "./pair.js";

/** An edit that can be chosen, with the words for its button. */
export interface Choice {
  readonly name: string;
  readonly spec: EditSpec;
}

/** The site of a node: what stands there in the model. */
export function siteOfNode({ kind, layer }: GraphNode): SiteSpec {
  const kinds: Record<GraphNode["kind"], SiteKind> = {
    X: "residual_in",
    A: "residual_after_attn",
    M: "ffn_out",
    I: "residual_out",
  };
  return { kind: kinds[kind], layer };
}

/** What `choices` are for. */
export interface Chosen {
  readonly selection: Selection;
  readonly head?: number | undefined;
  readonly neuron?: number | undefined;
}

/** The site and position that a selection is of: of an edge, what comes along it. */
export function placeOf({ selection, head, neuron }: Chosen): { readonly site: SiteSpec; readonly pos: number } {
  const node = selection.what === "node" ? selection.node : selection.ends.target;
  const { layer, pos } = node;
  if (head !== undefined) {
    return { site: { kind: "head", layer, head }, pos };
  }
  if (neuron !== undefined) {
    return { site: { kind: "neurons", layer, neurons: [neuron] }, pos };
  }
  if (selection.what === "edge") {
    return { site: { kind: node.kind === "A" ? "attn_out" : "ffn_out", layer }, pos };
  }
  return { site: siteOfNode(node), pos };
}

/** Ablations of a selection: what was added to the stream, not the stream itself. */
export function ablations(chosen: Chosen): Choice[] {
  const { site, pos } = placeOf(chosen);
  const ablate = { op: "scale", factor: 0, site } as const;
  switch (site.kind) {
    case "head":
      return [
        { name: "Ablate this head", spec: { ...ablate, positions: "all" } },
        { name: "Ablate this head here", spec: { ...ablate, positions: [pos] } },
      ];
    case "neurons":
      return [
        { name: "Ablate this neuron", spec: { ...ablate, positions: "all" } },
        { name: "Ablate this neuron here", spec: { ...ablate, positions: [pos] } },
      ];
    case "attn_out":
      return [{ name: "Ablate attention here", spec: { ...ablate, positions: [pos] } }];
    case "ffn_out":
      return [{ name: "Ablate feed-forward here", spec: { ...ablate, positions: [pos] } }];
    default:
      return [];
  }
}

/** What the other sentence has at the same place; undefined if it has no such place. */
export function patchOf(chosen: Chosen, pair: Pair): EditSpec | undefined {
  const { site, pos } = placeOf(chosen);
  const from = pair.alignment.secondOf(pos);
  if (from === undefined) {
    return undefined;
  }
  return { op: "patch", site, positions: [pos], ...(from === pos ? {} : { sourcePositions: [from] }) };
}
