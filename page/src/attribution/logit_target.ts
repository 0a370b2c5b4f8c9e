/** Which logit is taken apart. */

import { useMemo } from "preact/hooks";
import type { RunView } from "../run/run_view.js";
import { type TypedToken, useSingleToken } from "../shown/single_token.js";
import { type ReadState, useRead } from "../shown/use_read.js";

/** The logit of a token at a position, or its difference from that of another token. */
export interface LogitTarget {
  readonly position: number;
  readonly token: number;
  readonly minusToken: number | undefined;
  /** In words. */
  readonly name: string;
}

/** What the controls say. */
export interface TargetChoice {
  readonly position: number;
  /** Empty: the token that the model holds for the most likely. */
  readonly text: string;
  /** Empty: none. */
  readonly minusText: string;
}

interface TopToken {
  readonly position: number;
  readonly id: number;
  readonly text: string;
}

/** What is known of a choice. */
export interface TargetState {
  /** Undefined until all tokens are known. */
  readonly target: LogitTarget | undefined;
  readonly token: ReadState<TypedToken | undefined>;
  readonly minusToken: ReadState<TypedToken | undefined>;
  readonly top: ReadState<TopToken>;
}

export function useTarget(run: RunView, { position, text, minusText }: TargetChoice): TargetState {
  const [token, minusToken] = [useSingleToken(run, text), useSingleToken(run, minusText)];
  const top = useRead((signal) => topToken(run, position, signal), [run, position]);
  const chosen = text !== "" ? token.value : top.value?.position === position ? top.value : undefined;
  const isKnown = chosen !== undefined && (minusText === "" || minusToken.value !== undefined);
  const minusId = minusToken.value?.id;
  const target = useMemo(
    () =>
      isKnown ? { position, token: chosen.id, minusToken: minusId, name: nameOf(chosen.text, minusText) } : undefined,
    [isKnown, position, chosen?.id, minusId],
  );
  return { target, token, minusToken, top };
}

function nameOf(text: string, minusText: string): string {
  return minusText === "" ? JSON.stringify(text) : `${JSON.stringify(text)} minus ${JSON.stringify(minusText)}`;
}

async function topToken(run: RunView, position: number, signal: AbortSignal): Promise<TopToken> {
  const { topIds } = await run.llm.layerLens(0, run.model.nLayers - 1, { positions: [position], k: 1, signal });
  const id = topIds.at(0, 0);
  const [text = ""] = await run.llm.tokensToStrings([id], { signal });
  return { position, id, text };
}
