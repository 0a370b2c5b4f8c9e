/** The model in numbers. */

import type { JSX } from "preact";
import { usePage } from "../page_state.js";

export function ModelCard(): JSX.Element | null {
  const page = usePage();
  const models = page.connection.server.value?.models ?? [];
  const model = models.find(({ name }) => name === page.model.value) ?? models[0];
  if (model === undefined) {
    return null;
  }
  const rows: readonly (readonly [string, string])[] = [
    ["Name", model.name],
    ["Parameters", model.nParamsEstimate.toLocaleString("en")],
    ["Layers", String(model.nLayers)],
    ["Heads", String(model.nHeads)],
    ["Width (d_model)", String(model.dModel)],
    ["Vocabulary", model.dVocab.toLocaleString("en")],
    ["Longest input", `${model.nCtx.toLocaleString("en")} tokens`],
    ["Architecture", model.architecture],
    ["Type and device", `${model.dtype ?? "?"} on ${model.device}`],
    ["Digest", model.digest.slice(0, 16)],
  ];
  return (
    <details class="model">
      <summary>Model: {model.name}</summary>
      <table>
        <tbody>
          {rows.map(([name, value]) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              <td>{value}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </details>
  );
}
