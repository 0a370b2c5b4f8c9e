/** The graph, its controls, and what is open of it. */

import type { JSX } from "preact";
import type { NotSupportedError } from "transparent-llm/web";
import { Details } from "../details/details.js";
import { usePage } from "../page_state.js";
import type { RunView } from "../run/run_view.js";
import { Problem } from "../shown/advice.js";
import { ExportButtons } from "./export_buttons.js";
import { GraphControls } from "./graph_controls.js";
import { GraphView } from "./graph_view.js";
import { GrowingGraphView } from "./growing_graph_view.js";

/** Why some layers show no paths, or all of them. */
function Gaps({
  gaps,
  nLayers,
}: {
  readonly gaps: ReadonlyMap<number, NotSupportedError>;
  readonly nLayers: number;
}): JSX.Element {
  const [why] = gaps.values();
  if (gaps.size === nLayers) {
    return <Problem error={why} />;
  }
  const [name, show, them] = gaps.size === 1 ? ["Layer", "shows", "it"] : ["Layers", "show", "them"];
  return (
    <p class="gaps" role="note">
      {name} {[...gaps.keys()].join(", ")} {show} no paths ({why?.message}). Dashed lines go past {them} at the same
      position; what came from other positions there is not seen.
    </p>
  );
}

export function GraphTab({ run }: { readonly run: RunView }): JSX.Element {
  const { graph, growing } = usePage();
  const gaps = run.gaps.value;
  if (growing.value !== undefined) {
    return <GrowingGraphView growing={growing.value} />;
  }
  return (
    <div class="graph-tab">
      <div class="graph-side">
        <GraphControls />
        {gaps.size > 0 && <Gaps gaps={gaps} nLayers={run.model.nLayers} />}
        <GraphView tokens={run.tokens} nLayers={run.model.nLayers} graph={graph.value} gaps={gaps} isOpenable={true} />
        <ExportButtons run={run} />
      </div>
      <Details run={run} />
    </div>
  );
}
