/** The graph, its controls, and what is open of it. */

import type { JSX } from "preact";
import { Details } from "../details/details.js";
import { usePage } from "../page_state.js";
import type { RunView } from "../run/run_view.js";
import { Problem } from "../shown/advice.js";
import { ExportButtons } from "./export_buttons.js";
import { GraphControls } from "./graph_controls.js";
import { GraphView } from "./graph_view.js";
import { GrowingGraphView } from "./growing_graph_view.js";

export function GraphTab({ run }: { readonly run: RunView }): JSX.Element {
  const { graph, growing } = usePage();
  if (growing.value !== undefined) {
    return <GrowingGraphView growing={growing.value} />;
  }
  return (
    <div class="graph-tab">
      <div class="graph-side">
        <GraphControls />
        {run.refusal.value !== undefined && <Problem error={run.refusal.value} />}
        <GraphView tokens={run.tokens} nLayers={run.model.nLayers} graph={graph.value} isOpenable={true} />
        <ExportButtons run={run} />
      </div>
      <Details run={run} />
    </div>
  );
}
