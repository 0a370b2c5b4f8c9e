/** What a feed-forward part added at one position, as a whole and by neurons. */

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { Tensor } from "transparent-llm/web";
import { EditButtons } from "../compare/edit_buttons.js";
import { type GraphNode, nodeName, nodeWords } from "../graph/selection.js";
import type { RunView } from "../run/run_view.js";
import { Reading } from "../shown/reading.js";
import { visible } from "../shown/token_text.js";
import { useRead } from "../shown/use_read.js";
import { type Choice, Choices } from "./choices.js";
import { numbersOf, only } from "./numbers.js";
import { SpokenByVector } from "./spoken_for.js";

const MOST_NEURONS = 20;

type Chosen = number | "all";

interface Neuron {
  readonly id: number;
  readonly share: number;
  readonly activation: number;
}

/** Of a node of the kind M. What a model's neurons are is a question of its own: without them there is still the whole. */
export function FfnDetails({ run, node }: { readonly run: RunView; readonly node: GraphNode }): JSX.Element {
  const [chosen, setChosen] = useState<Chosen>("all");
  const neurons = useRead((signal) => strongest(run, node, signal), [run, nodeName(node)]);
  const title = chosen === "all" ? "Promoted by the whole output" : `Promoted by the output vector of neuron ${chosen}`;
  return (
    <>
      <h2>{nodeWords(node, run.tokens, visible)}</h2>
      <section data-part="neurons">
        <Reading of={neurons}>
          {(found) => (
            <>
              <p class="quiet">
                The {found.length} neurons that contribute most: the share of each, and a: its activation. With one
                below 0, a neuron works against what its vector promotes.
              </p>
              <Choices label="Neurons" choices={choicesOf(found)} chosen={chosen} onChoose={setChosen} />
            </>
          )}
        </Reading>
      </section>
      <SpokenByVector
        run={run}
        title={title}
        name={`${nodeName(node)} ${chosen}`}
        read={(signal) =>
          chosen === "all" ? wholeOutput(run, node, signal) : run.llm.neuronOutput(node.layer, chosen, { signal })
        }
      />
      <EditButtons run={run} selection={{ what: "node", node }} {...(chosen === "all" ? {} : { neuron: chosen })} />
    </>
  );
}

function choicesOf(neurons: readonly Neuron[]): Choice<Chosen>[] {
  const single = ({ id, share, activation }: Neuron): Choice<Chosen> => ({
    value: id,
    label: `Neuron ${id}`,
    share,
    note: `a ${activation.toFixed(3)}`,
  });
  return [{ value: "all", label: "All neurons" }, ...neurons.map(single)];
}

async function strongest(run: RunView, { layer, pos }: GraphNode, signal: AbortSignal): Promise<Neuron[]> {
  const activations = await run.llm.neuronActivations(0, layer, pos, { signal });
  const k = Math.min(MOST_NEURONS, activations.length);
  const { ids, values } = await run.llm.neuronContributions(0, layer, pos, { k, signal });
  const shares = numbersOf(values);
  return numbersOf(ids).map((id, i) => ({ id, share: shares[i] as number, activation: activations.at(id) }));
}

async function wholeOutput(run: RunView, { layer, pos }: GraphNode, signal: AbortSignal): Promise<Tensor> {
  const slices = { batch: only(0), pos: only(pos) };
  const { dtype, bytes, length } = await run.llm.ffnOut(layer, { slices, signal });
  return new Tensor({ dtype, shape: [length], bytes });
}
