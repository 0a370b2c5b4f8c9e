/** The heads: what each is for, and how it attends. */

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { RunView } from "../run/run_view.js";
import { HeadPatterns } from "./head_patterns.js";
import type { HeadPlace } from "./head_place.js";
import { HeadScores } from "./head_scores.js";
import "./heads.css";

export function HeadsTab({ run }: { readonly run: RunView }): JSX.Element {
  const [place, setPlace] = useState<HeadPlace>({ layer: 0, head: 0 });
  return (
    <div class="heads-tab">
      <HeadScores run={run} onChoose={setPlace} />
      <HeadPatterns run={run} place={place} onChoose={setPlace} />
    </div>
  );
}
