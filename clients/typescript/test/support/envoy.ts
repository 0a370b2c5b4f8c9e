/** The real Envoy with the project's configuration, before one server. */

import { fileURLToPath } from "node:url";
import { Child } from "./child.js";
import { PROJECT, PYTHON } from "./python.js";

/** Start one. Its address is what it said; end its input to end it. */
export function startEnvoy(target: string): Promise<Child> {
  const script = fileURLToPath(new URL("envoy.py", import.meta.url));
  return Child.start(PYTHON, [script, target], /^(\S+:\d+)$/, { PYTHONPATH: `${PROJECT}tests` });
}
