/** The tokens that a vector speaks for, and those that it speaks against. */

import type { JSX } from "preact";
import type { Tensor } from "transparent-llm/web";
import { usePage } from "../page_state.js";
import type { RunView } from "../run/run_view.js";
import { Reading } from "../shown/reading.js";
import { useRead } from "../shown/use_read.js";
import { type TokenRow, TokenTable } from "./token_table.js";

/** How many of each are shown. */
export const MOST_SPOKEN = 15;

/** The strongest come first in both. */
export interface SpokenFor {
  readonly promoted: readonly TokenRow[];
  readonly suppressed: readonly TokenRow[];
}

/** What the server says of the largest and the smallest logits. */
export interface FoundTokens {
  readonly topIds: readonly number[];
  readonly topLogits: readonly number[];
  readonly bottomIds: readonly number[];
  readonly bottomLogits: readonly number[];
}

/** Found tokens with their texts, which are asked for in one call. */
export async function named(run: RunView, found: FoundTokens, signal: AbortSignal): Promise<SpokenFor> {
  const { topIds, topLogits, bottomIds, bottomLogits } = found;
  const tokens = await run.llm.tokensToStrings([...topIds, ...bottomIds], { signal });
  const rows = (ids: readonly number[], logits: readonly number[], from: number): TokenRow[] =>
    ids.map((id, i) => ({ id, token: tokens[from + i] as string, score: logits[i] as number }));
  return { promoted: rows(topIds, topLogits, 0), suppressed: rows(bottomIds, bottomLogits, topIds.length) };
}

/** How many of `count` tokens a model has. */
export function tokensOf({ model }: RunView, count: number): number {
  return Math.min(count, model.dVocab);
}

/**
 * Of a vector that is read for it.
 *
 * @param name says which vector it is: another name, and it is read anew.
 */
export function SpokenByVector({
  run,
  title,
  name,
  read,
}: {
  readonly run: RunView;
  readonly title: string;
  readonly name: string;
  readonly read: (signal: AbortSignal) => Promise<Tensor>;
}): JSX.Element {
  const normalize = usePage().normalize.value;
  const found = useRead(
    async (signal) => {
      const k = tokensOf(run, MOST_SPOKEN);
      const vector = await read(signal);
      const tokens = await run.llm.topTokens(vector, { normalize, k, bottomK: k, signal });
      return { title, normalize, spoken: await named(run, tokens, signal) };
    },
    [run, name, normalize],
  );
  return (
    <section data-part="spoken">
      <Reading of={found}>
        {({ title, normalize, spoken }) => (
          <>
            <h3>{title}</h3>
            <p class="quiet">{normalize ? "With the final norm of the vector by itself." : "Not normalized."}</p>
            <SpokenTables of={spoken} />
          </>
        )}
      </Reading>
    </section>
  );
}

/** Both tables, side by side where there is room. */
export function SpokenTables({ of }: { readonly of: SpokenFor }): JSX.Element {
  return (
    <div class="side-by-side">
      <TokenTable name="promoted" caption="Promoted" rows={of.promoted} />
      <TokenTable name="suppressed" caption="Suppressed" rows={of.suppressed} />
    </div>
  );
}
