/** The contribution graph as the client in Node has it, by the server's own edges. */

import { ContributionGraph, type LayerEdges, type RemoteTransparentLlm } from "../../../clients/typescript/src/node.js";

const HOW = { threshold: 0.04, renormalize: true };

/** Of the client's current run, with what the page begins with, or another threshold. */
export async function clientGraph(llm: RemoteTransparentLlm, how = HOW): Promise<ContributionGraph> {
  const { nLayers } = await llm.modelInfo();
  const layers: LayerEdges[] = [];
  for (let layer = 0; layer < nLayers; layer++) {
    const edges = await llm.contributionEdges(0, layer, { ...how, dtype: "F32" });
    layers.push({
      attention: edges.attention.toFloat32(),
      attentionResidual: edges.attentionResidual.toFloat32(),
      ffn: edges.ffn.toFloat32(),
      ffnResidual: edges.ffnResidual.toFloat32(),
    });
  }
  return new ContributionGraph(layers, llm.tokens().shape[1] as number, how);
}
