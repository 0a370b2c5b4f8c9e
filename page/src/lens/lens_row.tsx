/** One layer of the lens as a row of a table. */

import type { JSX } from "preact";
import { useMemo } from "preact/hooks";
import { textOn } from "../shown/scale.js";
import { TokenText } from "../shown/token_text.js";
import { type ColouredBy, colourOf, percent, valueWords } from "./lens_colours.js";
import type { LensCell } from "./lens_layer.js";

interface LensRowProps {
  readonly layer: number;
  /** Undefined until they have arrived. */
  readonly cells: readonly LensCell[] | undefined;
  readonly nTokens: number;
  readonly colouredBy: ColouredBy;
  readonly vocabulary: number;
  /** The cell of this row that the tab key comes to, if it is in this row. */
  readonly tabStop: number | undefined;
}

/** Made anew only when something of it changes: the table may have thousands of cells. */
export function LensRow({ layer, cells, nTokens, colouredBy, vocabulary, tabStop }: LensRowProps): JSX.Element {
  return useMemo(
    () => (
      <tr data-layer={layer}>
        <th scope="row">Layer {layer}</th>
        {cells === undefined ? (
          <td colSpan={nTokens} class="lens-coming">
            …
          </td>
        ) : (
          cells.map((cell, position) => (
            <LensTableCell
              key={position}
              {...{ cell, position, colouredBy, vocabulary }}
              isStop={tabStop === position}
            />
          ))
        )}
      </tr>
    ),
    [layer, cells, nTokens, colouredBy, vocabulary, tabStop],
  );
}

function LensTableCell({
  cell,
  position,
  colouredBy,
  vocabulary,
  isStop,
}: {
  readonly cell: LensCell;
  readonly position: number;
  readonly colouredBy: ColouredBy;
  readonly vocabulary: number;
  readonly isStop: boolean;
}): JSX.Element {
  const colour = colourOf(cell, colouredBy, vocabulary);
  const [top] = cell.top;
  return (
    <td
      data-position={position}
      tabIndex={isStop ? 0 : -1}
      style={colour === undefined ? undefined : { backgroundColor: colour, color: textOn(colour) }}
    >
      <div class="lens-cell">
        <TokenText token={top?.token ?? ""} />
        <span class="lens-share">{percent(top?.probability ?? 0)}</span>
        {colouredBy !== "probability" && <span class="lens-value">{valueWords(cell, colouredBy)}</span>}
      </div>
    </td>
  );
}
