/** A logit as a sum. */

import type { JSX } from "preact";
import { TermTable } from "../shown/signed.js";
import type { LogitSum } from "./logit_terms.js";

export function SumTable({ sum }: { readonly sum: LogitSum }): JSX.Element {
  const { target } = sum;
  const layers = sum.layers.map((value, layer) => ({ id: `layer-${layer}`, name: `Layer ${layer}`, value }));
  return (
    <section class="card" aria-label="The terms of the logit">
      <TermTable
        caption={`The logit of ${target.name} at position ${target.position}`}
        terms={[
          { id: "embedding", name: "Embedding", value: sum.embedding },
          ...layers,
          { id: "norm-bias", name: "Bias of the final norm", value: sum.normBias },
          { id: "unembed-bias", name: "Bias of the unembedding", value: sum.unembedBias },
        ]}
        results={[
          { id: "sum", name: "Sum of the terms", value: sum.sum },
          { id: "logit", name: "The model's own logit", value: sum.logit },
          { id: "difference", name: "Sum less logit", value: sum.sum - sum.logit },
        ]}
      />
      <p class="quiet">
        The terms add up to the logit, but for rounding and, where a model has one, the soft cap that comes last. All
        are divided by the scale of the final norm here, {sum.scale.toFixed(4)}.
      </p>
    </section>
  );
}
