/** What a client knows of a run. */

import type { RemoteTransparentLlm } from "./client.js";
import { requireDigest } from "./digest.js";
import { InternalError } from "./errors.js";
import type { RunResponse } from "./gen/transparent_llm/v1/service_pb.js";
import type { Edit } from "./interventions/edit.js";
import { type EditEffect, effectsOf } from "./interventions/effect.js";
import type { RunInput } from "./run_input.js";
import { Tensor } from "./tensor.js";

/** Longer than the name of any run. */
const MOST_RUN_ID = 256;

/** What a run is made of; a client keeps it to make a lost run again. */
export interface Recipe {
  readonly input: RunInput;
  readonly edits: readonly Edit[];
  /** What the objects that edits take from had run when the run was begun. */
  readonly sources: ReadonlyMap<RemoteTransparentLlm, Run>;
}

/** A run that a server made. */
export interface Run extends Recipe {
  /** The routing key of all its calls. */
  readonly key: string;
  readonly id: string;
  readonly modelDigest: string;
  /** [batch pos], I64. */
  readonly tokens: Tensor;
  /** [batch pos], BOOL; undefined where the model does not distinguish padding from tokens. */
  readonly mask: Tensor | undefined;
  /** What each edit did. */
  readonly effects: readonly EditEffect[];
}

/** @throws InternalError the answer contradicts itself, or is not of this input. */
export function runOfResponse(recipe: Recipe, key: string, response: RunResponse): Run {
  const { input, edits } = recipe;
  const { batchSize, nPos, tokenIds, mask } = response;
  if (tokenIds.length === 0 || tokenIds.length !== batchSize * nPos || ![0, tokenIds.length].includes(mask.length)) {
    throw new InternalError(
      `the server's answer to Run contradicts itself: ${tokenIds.length} tokens, ${mask.length} of a mask, for [${batchSize}, ${nPos}]`,
    );
  }
  const [rows, longest] = sizeOf(input);
  if (batchSize !== rows || (longest !== undefined && nPos !== longest)) {
    throw new InternalError(`the server made a run of ${batchSize} rows of ${nPos} positions, not of what was sent`);
  }
  if (response.runId === "" || response.runId.length > MOST_RUN_ID) {
    throw new InternalError(`the server sent a run id of ${response.runId.length} characters`);
  }
  const wrong = mask.findIndex((isToken, i) => isToken && i % nPos !== 0 && !mask[i - 1]);
  if (wrong >= 0) {
    throw new InternalError(
      `the server put padding before a token of row ${Math.floor(wrong / nPos)}: it belongs on the right`,
    );
  }
  const axes = { shape: [batchSize, nPos], dims: ["batch", "pos"] };
  return {
    ...recipe,
    key,
    id: response.runId,
    modelDigest: requireDigest(response.modelDigest),
    tokens: new Tensor({ dtype: "I64", ...axes, bytes: bytesOfTokens(tokenIds) }),
    mask: mask.length === 0 ? undefined : new Tensor({ dtype: "BOOL", ...axes, bytes: Uint8Array.from(mask, Number) }),
    effects: effectsOf(response.effects, edits.length),
  };
}

/** Rows that were sent, and the length of the longest where that is known already. */
function sizeOf(input: RunInput): [number, number | undefined] {
  return "sentences" in input
    ? [input.sentences.length, undefined]
    : [input.tokenIds.length, input.tokenIds.reduce((longest, { length }) => Math.max(longest, length), 0)];
}

function bytesOfTokens(tokenIds: readonly number[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(tokenIds.length * 8);
  const view = new DataView(bytes.buffer);
  tokenIds.forEach((id, position) => {
    view.setBigInt64(position * 8, BigInt(id), true);
  });
  return bytes;
}
