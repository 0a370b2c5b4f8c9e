/** The logit lens: what each layer would say comes next, if it were the last. */

import type { JSX } from "preact";
import { useMemo, useState } from "preact/hooks";
import { usePage } from "../page_state.js";
import type { RunView } from "../run/run_view.js";
import { Problem } from "../shown/advice.js";
import { fileName, save } from "../shown/save.js";
import { useSingleToken } from "../shown/single_token.js";
import { TokenNames } from "../shown/token_names.js";
import { useLayers } from "../shown/use_layers.js";
import { useRead } from "../shown/use_read.js";
import "./lens.css";
import { type LensChoice, LensControls } from "./lens_controls.js";
import { cellWords, LensDetails } from "./lens_details.js";
import { lensCsv, lensJson, type SavedLens } from "./lens_file.js";
import { LensGrid, type LensPlace } from "./lens_grid.js";
import { type Chosen, nextTokens, readLens } from "./lens_layer.js";

/** How many ids any server translates at once. */
const FEW_IDS = 64;

export function LensTab({ run }: { readonly run: RunView }): JSX.Element {
  const limits = usePage().connection.server.value?.limits;
  const names = useMemo(() => new TokenNames(run.llm, Number(limits?.maxTokensPerRun ?? FEW_IDS)), [run, limits]);
  const [choice, setChoice] = useState<LensChoice>({ point: "out", colouredBy: "probability", text: "" });
  const [open, setOpen] = useState<LensPlace>();
  const [pointed, setPointed] = useState<LensPlace>();
  const token = useSingleToken(run, choice.text);
  const chosen = useChosen(run, choice.text, token.value?.id);
  const { layers, error, isComing } = useLayers(
    run.model.nLayers,
    (layer, signal) => readLens(run, layer, { point: choice.point, chosen, names }, signal),
    [run, names, choice.point, chosen],
  );
  const logprobs = useRead((signal) => run.llm.tokenLogprobs(0, { signal }), [run]);
  const cellAt = (place: LensPlace | undefined) => place && layers[place.layer]?.[place.position];
  const looked = pointed ?? open;
  const [cell, heard] = [cellAt(looked), cellAt(open)];
  return (
    <div class="lens-tab">
      <LensControls choice={choice} onChoice={setChoice} token={token} vocabulary={run.model.dVocab} />
      {error !== undefined && <Problem error={error} />}
      {logprobs.error !== undefined && <Problem error={logprobs.error} />}
      <div class="lens-both">
        <div aria-busy={isComing}>
          <LensGrid
            run={run}
            layers={layers}
            logprobs={logprobs.value}
            colouredBy={choice.colouredBy}
            open={open}
            onOpen={setOpen}
            onPoint={setPointed}
          />
          <output class="lens-words" aria-live="polite">
            {heard === undefined
              ? "Point at a cell, or move with the arrow keys."
              : cellWords(run, open as LensPlace, heard)}
          </output>
          <SaveLens lens={{ run, point: choice.point, layers, logprobs: logprobs.value }} isWhole={!isComing} />
        </div>
        {cell === undefined ? (
          <p class="placeholder">The cell that you look at is shown here in numbers.</p>
        ) : (
          <LensDetails run={run} place={looked as LensPlace} cell={cell} />
        )}
      </div>
    </div>
  );
}

/** The token that is looked for: the typed one, or the next of the text. None while the typed one is not known. */
function useChosen(run: RunView, text: string, id: number | undefined): Chosen {
  return useMemo(() => (text === "" ? nextTokens(run) : run.tokenIds.map(() => id)), [run, text === "", id]);
}

function SaveLens({ lens, isWhole }: { readonly lens: SavedLens; readonly isWhole: boolean }): JSX.Element {
  const name = (ending: string): string => fileName(lens.run.model.name, "lens", ending);
  return (
    <div class="toolbar" role="group" aria-label="Save the lens">
      <button type="button" disabled={!isWhole} onClick={() => save(name("json"), lensJson(lens))}>
        JSON
      </button>
      <button type="button" disabled={!isWhole} onClick={() => save(name("csv"), lensCsv(lens), "text/csv")}>
        CSV
      </button>
    </div>
  );
}
