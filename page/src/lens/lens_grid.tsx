/** The lens as a table: layers, the last on top, by positions. */

import type { JSX } from "preact";
import { useMemo, useRef } from "preact/hooks";
import type { TokenLogprobs } from "transparent-llm/web";
import type { RunView } from "../run/run_view.js";
import { TokenText } from "../shown/token_text.js";
import type { ColouredBy } from "./lens_colours.js";
import type { LensCell } from "./lens_layer.js";
import { LensRow } from "./lens_row.js";

/** Where a cell is. */
export interface LensPlace {
  readonly layer: number;
  readonly position: number;
}

interface LensGridProps {
  readonly run: RunView;
  /** From the lowest layer up, as far as they have arrived. */
  readonly layers: readonly (readonly LensCell[])[];
  readonly logprobs: TokenLogprobs | undefined;
  readonly colouredBy: ColouredBy;
  /** The cell that has been opened. */
  readonly open: LensPlace | undefined;
  readonly onOpen: (place: LensPlace) => void;
  /** The pointer is at a cell, or has left them. */
  readonly onPoint: (place: LensPlace | undefined) => void;
}

/** Only one cell is a stop of the tab key; the arrow keys go on from it. */
export function LensGrid(props: LensGridProps): JSX.Element {
  const { run, layers, open } = props;
  const table = useRef<HTMLTableElement>(null);
  const stop = open !== undefined && open.layer < layers.length ? open : { layer: layers.length - 1, position: 0 };
  const onKeyDown = (event: KeyboardEvent): void => {
    const from = placeOf(event.target);
    const to = from && stepped(from, event, run.nTokens - 1);
    if (to !== undefined) {
      event.preventDefault();
      const at = `tr[data-layer="${to.layer}"] > td[data-position="${to.position}"]`;
      table.current?.querySelector<HTMLElement>(at)?.focus();
    }
  };
  const layersDown = Array.from({ length: run.model.nLayers }, (_, i) => run.model.nLayers - 1 - i);
  return (
    <div class="lens-frame" style={{ height: frameHeight(run.model.nLayers) }}>
      <table
        ref={table}
        class="lens"
        // biome-ignore lint/a11y/noNoninteractiveElementToInteractiveRole: a table that keys go through is a grid
        role="grid"
        style={{ width: tableWidth(run.nTokens) }}
        aria-label="Logit lens: the most likely next token at each layer and position"
        onKeyDown={onKeyDown}
        onFocusIn={(event) => told(props.onOpen, event)}
        onPointerOver={(event) => props.onPoint(placeOf(event.target))}
        onPointerLeave={() => props.onPoint(undefined)}
      >
        <thead>
          <Tokens run={run} />
        </thead>
        <tbody>
          {layersDown.map((layer) => (
            <LensRow
              key={layer}
              layer={layer}
              cells={layers[layer]}
              nTokens={run.nTokens}
              colouredBy={props.colouredBy}
              vocabulary={run.model.dVocab}
              tabStop={stop.layer === layer ? stop.position : undefined}
            />
          ))}
        </tbody>
        <tfoot>
          <NextTokens run={run} logprobs={props.logprobs} />
        </tfoot>
      </table>
    </div>
  );
}

/** Known beforehand, as is the width: what changes beside a table of thousands of cells lays out none of them anew. */
function frameHeight(nLayers: number): string {
  return `min(70vh, calc(${nLayers} * 2.6rem + 6rem))`;
}

function tableWidth(nTokens: number): string {
  return `calc(6.5rem + 3px + ${nTokens} * (5.6rem + 1px))`;
}

function Tokens({ run }: { readonly run: RunView }): JSX.Element {
  return useMemo(
    () => (
      <tr>
        <th scope="col">Position</th>
        {run.tokens.map((token, position) => (
          <th key={position} scope="col">
            <span class="quiet">{position}</span> <TokenText token={token} />
          </th>
        ))}
      </tr>
    ),
    [run],
  );
}

/** What the model itself gives to the token that really follows. */
function NextTokens({
  run,
  logprobs,
}: {
  readonly run: RunView;
  readonly logprobs: TokenLogprobs | undefined;
}): JSX.Element {
  const rows: readonly (readonly [string, string, (position: number) => string])[] = [
    ["logprob", "Log p of next", (position) => logprobs?.logprobs.at(position).toFixed(4) ?? "…"],
    ["rank", "Rank of next", (position) => (logprobs === undefined ? "…" : String(logprobs.ranks.at(position) + 1))],
  ];
  return useMemo(
    () => (
      <>
        {rows.map(([name, title, words]) => (
          <tr key={name} data-next={name}>
            <th scope="row">{title}</th>
            {run.tokens.map((_, position) => (
              <td key={position}>{position === run.nTokens - 1 ? "–" : words(position)}</td>
            ))}
          </tr>
        ))}
      </>
    ),
    [run, logprobs],
  );
}

function told(tell: (place: LensPlace) => void, event: Event): void {
  const place = placeOf(event.target);
  if (place !== undefined) {
    tell(place);
  }
}

/** The cell that an element is in. */
function placeOf(target: EventTarget | null): LensPlace | undefined {
  const cell = target instanceof Element ? target.closest<HTMLElement>("td[data-position]") : null;
  const row = cell?.closest<HTMLElement>("tr[data-layer]");
  return cell && row ? { layer: Number(row.dataset["layer"]), position: Number(cell.dataset["position"]) } : undefined;
}

/** Where a key goes to; it may be outside. Higher layers are above. */
function stepped({ layer, position }: LensPlace, event: KeyboardEvent, last: number): LensPlace | undefined {
  if (event.altKey || event.ctrlKey || event.metaKey) {
    return undefined;
  }
  switch (event.key) {
    case "ArrowUp":
      return { layer: layer + 1, position };
    case "ArrowDown":
      return { layer: layer - 1, position };
    case "ArrowLeft":
      return { layer, position: position - 1 };
    case "ArrowRight":
      return { layer, position: position + 1 };
    case "Home":
      return { layer, position: 0 };
    case "End":
      return { layer, position: last };
    default:
      return undefined;
  }
}
