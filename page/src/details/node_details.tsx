import type { JSX } from "preact";
import type { GraphNode } from "../graph/selection.js";
import type { RunView } from "../run/run_view.js";

export function NodeDetails({ run, node }: { readonly run: RunView; readonly node: GraphNode }): JSX.Element {
  return (
    <p>
      {run.model.name} {JSON.stringify(node)}
    </p>
  );
}
