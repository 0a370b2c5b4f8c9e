import type { JSX } from "preact";
import type { EdgeEnds } from "../graph/selection.js";
import type { RunView } from "../run/run_view.js";

export function EdgeDetails({ run, ends }: { readonly run: RunView; readonly ends: EdgeEnds }): JSX.Element {
  return (
    <p>
      {run.model.name} {JSON.stringify(ends)}
    </p>
  );
}
