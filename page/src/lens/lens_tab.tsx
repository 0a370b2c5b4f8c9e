import type { JSX } from "preact";
import type { RunView } from "../run/run_view.js";

export function LensTab({ run }: { readonly run: RunView }): JSX.Element {
  return <p>{run.model.name}</p>;
}
