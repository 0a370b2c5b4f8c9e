/** Text as tokens, and tokens of a run as text. */

import { create } from "@bufbuild/protobuf";
import type { Calls } from "./calls.js";
import { InternalError, InvalidRequestError, NotSupportedError } from "./errors.js";
import {
  TokenizeRequestSchema,
  TokensToStringsRequestSchema,
  TransparentLlmService,
} from "./gen/transparent_llm/v1/service_pb.js";
import { quoted } from "./legible.js";
import type { Run } from "./run.js";
import { requireText } from "./run_input.js";
import type { Scope } from "./scope.js";
import type { Tensor } from "./tensor.js";

const RPCS = TransparentLlmService.method;

/** Of the tokens of a text, so many are named in a message. */
const MOST_NAMED = 10;

/** One token of a run. */
export interface TokenAt {
  readonly row: number;
  readonly pos: number;
  readonly id: number;
  /** That of the token by itself, leading space included. */
  readonly text: string;
}

/** The tokens of a text, and the text of each. */
export interface Tokenized {
  readonly ids: number[];
  readonly strings: string[];
}

/**
 * Ask for the tokens of a text.
 *
 * @param digest of the model that is meant; empty: whichever is served.
 * @throws InvalidRequestError no text.
 * @throws InternalError the answer contradicts itself.
 */
export async function tokenized(
  calls: Calls,
  text: string,
  { addBos, digest, scope }: { addBos: boolean | undefined; digest: string; scope: Scope },
): Promise<Tokenized> {
  requireText("the text", text);
  const { model } = calls.config;
  const request = create(TokenizeRequestSchema, {
    ...{ model, text, modelDigest: digest },
    ...(addBos !== undefined && { addBos }),
  });
  const { tokenIds: ids, tokenStrings: strings } = await calls.unary(RPCS.tokenize, request, scope);
  if (ids.length === 0 || ids.length !== strings.length || ids.some((id) => id < 0)) {
    throw new InternalError(
      `the server answered ${strings.length} strings for ${ids.length} tokens of a text, or a negative token id`,
    );
  }
  return { ids, strings };
}

/**
 * The only token of a text.
 *
 * @throws InvalidRequestError there are several.
 */
export function singleToken(text: string, { ids, strings }: Tokenized): number {
  if (ids.length !== 1) {
    const named = strings.slice(0, MOST_NAMED).map(quoted).join(", ");
    throw new InvalidRequestError(`${quoted(text)} is ${ids.length} tokens, not one: ${named}`, {
      metadata: { tokens: String(ids.length) },
    });
  }
  return ids[0] as number;
}

/** The text of each of these tokens. */
export async function stringsOf(calls: Calls, tokenIds: readonly number[], scope: Scope): Promise<string[]> {
  const request = create(TokensToStringsRequestSchema, { model: calls.config.model, tokenIds: [...tokenIds] });
  const { strings } = await calls.unary(RPCS.tokensToStrings, request, scope);
  if (strings.length !== tokenIds.length) {
    throw new InternalError(`the server answered ${strings.length} strings for ${tokenIds.length} tokens`);
  }
  return strings;
}

/**
 * Where tokens are in a run, and not padding.
 *
 * @throws NotSupportedError the model does not distinguish them.
 */
export function maskOf({ mask }: Run): Tensor {
  if (mask === undefined) {
    throw new NotSupportedError("the served model does not distinguish padding from tokens");
  }
  return mask;
}

/** The position of the last token of each row. */
export function lastOf(mask: Tensor): number[] {
  return lengthsOf(mask).map((length) => length - 1);
}

/** The tokens of a run, id beside text, without padding where it is known. */
export async function described(calls: Calls, { tokens, mask }: Run, scope: Scope): Promise<TokenAt[]> {
  const [rows, width] = tokens.shape as [number, number];
  const lengths = mask === undefined ? new Array<number>(rows).fill(width) : lengthsOf(mask);
  const ids = tokens.toFloat64();
  const listed: TokenAt[] = [];
  for (const [row, length] of lengths.entries()) {
    const ofRow = Array.from(ids.subarray(row * width, row * width + length));
    const texts = await stringsOf(calls, ofRow, scope);
    listed.push(...ofRow.map((id, pos) => ({ row, pos, id, text: texts[pos] as string })));
  }
  return listed;
}

/** Tokens of each row, which padding follows. */
function lengthsOf({ shape, bytes }: Tensor): number[] {
  const [rows, width] = shape as [number, number];
  return Array.from({ length: rows }, (_, row) =>
    bytes.subarray(row * width, (row + 1) * width).reduce((count, isToken) => count + isToken, 0),
  );
}
