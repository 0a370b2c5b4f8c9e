/** The whole page: what to run above, and what is inside of it below, one view at a time. */

import type { JSX } from "preact";
import { AttributionTab } from "./attribution/attribution_tab.js";
import { CompareTab } from "./compare/compare_tab.js";
import { AccessForm } from "./connection/access_form.js";
import { GraphTab } from "./graph/graph_tab.js";
import { GrowingGraphView } from "./graph/growing_graph_view.js";
import { HeadsTab } from "./heads/heads_tab.js";
import { LensTab } from "./lens/lens_tab.js";
import { TABS, type Tab, usePage } from "./page_state.js";
import { ModelCard } from "./run/model_card.js";
import { RunForm } from "./run/run_form.js";
import type { RunView } from "./run/run_view.js";
import { ShownRun } from "./run/shown_run.js";
import { StatusLine } from "./run/status_line.js";

const NAMES: Readonly<Record<Tab, string>> = {
  graph: "Graph",
  lens: "Logit lens",
  attribution: "Attribution",
  heads: "Heads",
  compare: "Compare",
};

export function Page(): JSX.Element {
  const page = usePage();
  const run = page.run.value;
  return (
    <>
      <header>
        <h1>Transparent LLM</h1>
        <AccessForm />
      </header>
      <main>
        <RunForm />
        <StatusLine />
        <ModelCard />
        {run === undefined ? <Beginning /> : <Views run={run} />}
      </main>
    </>
  );
}

/** Before the first run. */
function Beginning(): JSX.Element {
  const growing = usePage().growing.value;
  return growing === undefined ? (
    <p class="placeholder">What goes on inside the model is shown here.</p>
  ) : (
    <GrowingGraphView growing={growing} />
  );
}

/** Tabs as screen readers know them: arrow keys go from one to the next. */
function Views({ run }: { readonly run: RunView }): JSX.Element {
  const { tab } = usePage();
  const onKeyDown = (event: KeyboardEvent): void => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step !== undefined) {
      event.preventDefault();
      const next = TABS[(TABS.indexOf(tab.value) + step + TABS.length) % TABS.length] as Tab;
      tab.value = next;
      document.getElementById(`tab-${next}`)?.focus();
    }
  };
  return (
    <>
      <ShownRun run={run} />
      <div class="tabs" role="tablist" aria-label="Views" onKeyDown={onKeyDown}>
        {TABS.map((each) => (
          <button
            key={each}
            type="button"
            role="tab"
            id={`tab-${each}`}
            aria-selected={tab.value === each}
            aria-controls="view"
            tabIndex={tab.value === each ? 0 : -1}
            onClick={() => {
              tab.value = each;
            }}
          >
            {NAMES[each]}
          </button>
        ))}
      </div>
      <div id="view" role="tabpanel" aria-labelledby={`tab-${tab.value}`} key={run.llm.runId}>
        {view(tab.value, run)}
      </div>
    </>
  );
}

function view(tab: Tab, run: RunView): JSX.Element {
  switch (tab) {
    case "graph":
      return <GraphTab run={run} />;
    case "lens":
      return <LensTab run={run} />;
    case "attribution":
      return <AttributionTab run={run} />;
    case "heads":
      return <HeadsTab run={run} />;
    case "compare":
      return <CompareTab run={run} />;
  }
}
