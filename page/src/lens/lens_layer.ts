/** What the logit lens says of one layer, position by position. */

import type { LayerLens, ResidualPoint } from "transparent-llm/web";
import type { RunView } from "../run/run_view.js";
import type { TokenNames } from "../shown/token_names.js";

/** How many of the most likely tokens are shown of a cell. */
export const TOP = 5;

/** A token that may follow. */
export interface LensToken {
  readonly id: number;
  readonly token: string;
  readonly logit: number;
  readonly probability: number;
}

/** A token that is looked for, wherever it stands. */
export interface ChosenToken extends LensToken {
  /** 0 is the most likely, as the clients have it; people are shown one more. */
  readonly rank: number;
}

/** One position. */
export interface LensCell {
  /** The most likely first. */
  readonly top: readonly LensToken[];
  /** In nats. */
  readonly entropy: number;
  /** KL(model's output || lens) in nats. */
  readonly kl: number;
  /** Undefined where no token is looked for. */
  readonly chosen: ChosenToken | undefined;
}

/** The token that is looked for at each position. */
export type Chosen = readonly (number | undefined)[];

/** The token of the text that follows each position; none follows the last. */
export function nextTokens(run: RunView): Chosen {
  return run.tokenIds.map((_, position) => run.tokenIds[position + 1]);
}

/** Read all positions of a layer. [pos] */
export async function readLens(
  run: RunView,
  layer: number,
  { point, chosen, names }: { readonly point: ResidualPoint; readonly chosen: Chosen; readonly names: TokenNames },
  signal: AbortSignal,
): Promise<readonly LensCell[]> {
  const tokenIds = [...new Set(chosen.filter((id) => id !== undefined))];
  const lens = await run.llm.layerLens(0, layer, { point, k: TOP, withKl: true, tokenIds, signal });
  await names.learn([...Array.from(lens.topIds.data, Number), ...tokenIds], signal);
  return chosen.map((id, position) => cellOf(lens, position, id === undefined ? -1 : tokenIds.indexOf(id), id));

  function cellOf(of: LayerLens, position: number, column: number, id: number | undefined): LensCell {
    const token = (tokenId: number, logit: number): LensToken => {
      const probability = Math.exp(logit - of.logsumexp.at(position));
      return { id: tokenId, token: names.of(tokenId), logit, probability };
    };
    return {
      top: Array.from({ length: of.topIds.shape[1] as number }, (_, rank) =>
        token(of.topIds.at(position, rank), of.topLogits.at(position, rank)),
      ),
      entropy: of.entropy.at(position),
      kl: of.kl?.at(position) ?? Number.NaN,
      chosen:
        id === undefined
          ? undefined
          : { ...token(id, of.targetLogits.at(position, column)), rank: of.targetRanks.at(position, column) },
    };
  }
}
