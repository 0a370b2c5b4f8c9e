/** What of the lens is shown. */

import type { JSX } from "preact";
import type { ResidualPoint } from "transparent-llm/web";
import { TokenField, type TypedToken } from "../shown/single_token.js";
import type { ReadState } from "../shown/use_read.js";
import { COLOUR_NAMES, COLOURED_BY, type ColouredBy, legendOf } from "./lens_colours.js";

const POINTS: readonly (readonly [ResidualPoint, string])[] = [
  ["out", "after the layer"],
  ["after_attn", "after attention"],
  ["in", "layer input"],
];

/** What the controls say. */
export interface LensChoice {
  readonly point: ResidualPoint;
  readonly colouredBy: ColouredBy;
  /** Empty: the next token of the text. */
  readonly text: string;
}

export function LensControls({
  choice,
  onChoice,
  token,
  vocabulary,
}: {
  readonly choice: LensChoice;
  readonly onChoice: (choice: LensChoice) => void;
  readonly token: ReadState<TypedToken | undefined>;
  readonly vocabulary: number;
}): JSX.Element {
  return (
    <fieldset class="controls">
      <legend>Logit lens</legend>
      <label>
        Read
        <select
          name="point"
          value={choice.point}
          onChange={(event) => onChoice({ ...choice, point: event.currentTarget.value as ResidualPoint })}
        >
          {POINTS.map(([point, name]) => (
            <option key={point} value={point}>
              {name}
            </option>
          ))}
        </select>
      </label>
      <label>
        Colour
        <select
          name="coloured-by"
          value={choice.colouredBy}
          onChange={(event) => onChoice({ ...choice, colouredBy: event.currentTarget.value as ColouredBy })}
        >
          {COLOURED_BY.map((by) => (
            <option key={by} value={by}>
              {COLOUR_NAMES[by]}
            </option>
          ))}
        </select>
      </label>
      <TokenField
        label="Chosen token"
        name="chosen"
        placeholder="next of the text"
        text={choice.text}
        onText={(text) => onChoice({ ...choice, text })}
        token={token}
      />
      <span class="quiet">{legendOf(choice.colouredBy, vocabulary)}</span>
    </fieldset>
  );
}
