/** The neurons that gave most to a logit, or took most from it. */

import type { JSX } from "preact";
import { usePage } from "../page_state.js";
import type { RunView } from "../run/run_view.js";
import { Reading } from "../shown/reading.js";
import { TermTable } from "../shown/signed.js";
import { useRead } from "../shown/use_read.js";
import type { LayerTermsOf } from "./layer_terms.js";
import type { LogitTarget } from "./logit_target.js";

const MOST = 20;

export function NeuronTerms({
  run,
  target,
  layer,
  terms,
}: {
  readonly run: RunView;
  readonly target: LogitTarget;
  readonly layer: number;
  readonly terms: LayerTermsOf;
}): JSX.Element {
  const models = usePage().connection.server.value?.models ?? [];
  const k = Math.min(MOST, models.find(({ name }) => name === run.model.name)?.dFfn[layer] || MOST);
  const { position, token, minusToken } = target;
  const read = useRead(
    async (signal) => {
      const found = await run.llm.neuronAttribution(0, layer, position, token, { minusToken, k, signal });
      const [ids, values] = [Array.from(found.ids.data, Number), Array.from(found.values.toFloat64())];
      return { ids, values, rest: found.rest.at(), layer, terms };
    },
    [run, layer, k, position, token, minusToken],
  );
  return (
    <Reading of={read}>
      {(of) => (
        <div class="part-terms" tabIndex={0} role="region" aria-label="What the neurons gave">
          <TermTable
            caption={`Layer ${of.layer}: the ${of.ids.length} neurons with the largest terms`}
            terms={[
              ...of.ids.map((id, rank) => ({ id: `neuron-${id}`, name: `Neuron ${id}`, value: of.values[rank] ?? 0 })),
              { id: "neuron-rest", name: "All other neurons", value: of.rest },
              { id: "ffn-bias", name: "Bias", value: of.terms.ffnBias },
            ]}
            results={[
              { id: "neuron-sum", name: "Sum", value: sumOf([...of.values, of.rest, of.terms.ffnBias]) },
              { id: "ffn-term", name: "The feed-forward part's term", value: of.terms.ffn },
            ]}
          />
        </div>
      )}
    </Reading>
  );
}

function sumOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}
