/** What a run is made of: sentences, or token ids. A client keeps it to make a lost run again. */

import { create } from "@bufbuild/protobuf";
import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import { InvalidRequestError } from "./errors.js";
import type { Intervention } from "./gen/transparent_llm/v1/interventions_pb.js";
import { type RunRequest, RunRequestSchema } from "./gen/transparent_llm/v1/service_pb.js";

const TOKEN_ID_LIMIT = 2 ** 31;
const LONE_SURROGATE = /\p{Surrogate}/u;

/** Token ids of one row: numbers, or the BigInt64Array that `tokens` gives. */
export type TokenIds = ArrayLike<number> | ArrayLike<bigint>;

/** The input of a run. */
export type RunInput =
  | { readonly sentences: readonly string[] }
  | { readonly tokenIds: readonly (readonly number[])[] };

/** @throws InvalidRequestError a single string, something else than strings, or text that is no valid Unicode. */
export function inputOfSentences(sentences: readonly string[]): RunInput {
  if (!Array.isArray(sentences)) {
    throw new InvalidRequestError(
      `run takes an array of sentences, got ${typeof sentences}; for one write run([sentence])`,
    );
  }
  sentences.forEach(requireSentence);
  return { sentences: [...sentences] };
}

/** @throws InvalidRequestError rows that are no arrays, or an id that cannot be one, such as a negative number. */
export function inputOfTokens(rows: readonly TokenIds[]): RunInput {
  if (!Array.isArray(rows)) {
    throw new InvalidRequestError("runTokens takes an array of token ids for each row, in an array");
  }
  return { tokenIds: rows.map(tokenIdsOf) };
}

/**
 * Token ids as numbers.
 *
 * @throws InvalidRequestError no integer; UNKNOWN_TOKEN: a negative or huge number, which no vocabulary has.
 */
export function tokenIdsOf(row: TokenIds): number[] {
  if (typeof row !== "object" || row === null || typeof row.length !== "number") {
    throw new InvalidRequestError(`token ids come in an array, got ${typeof row}`);
  }
  return Array.from<number | bigint, number>(row as ArrayLike<number | bigint>, requireTokenId);
}

/** The message that asks for the run, changed on its way. */
export function runRequest(input: RunInput, model: string, edits: readonly Intervention[] = []): RunRequest {
  if ("sentences" in input) {
    return create(RunRequestSchema, {
      ...{ model, edits: [...edits] },
      input: { case: "sentences", value: { sentences: [...input.sentences] } },
    });
  }
  const sequences = input.tokenIds.map((tokenIds) => ({ tokenIds: [...tokenIds] }));
  return create(RunRequestSchema, { model, edits: [...edits], input: { case: "tokens", value: { sequences } } });
}

/**
 * The routing key, known before the first call: a hash of model and input, the same in every language, so that
 * one input has one replica. docs/PROTOCOL.md has its definition.
 */
export function runKey(input: RunInput, model: string): string {
  const parts = "sentences" in input ? ["sentences", ...input.sentences] : ["tokens", ...input.tokenIds.map(bigEndian)];
  return bytesToHex(sha256(lengthPrefixed([model, ...parts]))).slice(0, 32);
}

function requireSentence(sentence: unknown, index: number): void {
  requireText(`sentence ${index}`, sentence, { sentence: String(index) });
}

/** @throws InvalidRequestError something else than text, or text that is no valid Unicode. */
export function requireText(what: string, text: unknown, metadata: Readonly<Record<string, string>> = {}): void {
  if (typeof text !== "string") {
    throw new InvalidRequestError(`${what} is not text but ${typeof text}`, { metadata });
  }
  const wrong = text.search(LONE_SURROGATE);
  if (wrong >= 0) {
    throw new InvalidRequestError(`${what} is not valid Unicode at ${wrong}: half of a pair`, { metadata });
  }
}

function requireTokenId(given: number | bigint): number {
  const id = typeof given === "bigint" ? Number(given) : given;
  if (!Number.isInteger(id)) {
    throw new InvalidRequestError(`${String(given)} is not a token id: ids are integers`);
  }
  if (id < 0 || id >= TOKEN_ID_LIMIT) {
    throw new InvalidRequestError(
      `token ${given} is not in the vocabulary: ids begin at 0 and no vocabulary is that large`,
      {
        reason: "UNKNOWN_TOKEN",
        metadata: { token: String(given) },
      },
    );
  }
  return id;
}

/** Each part, texts in UTF-8, after its length in bytes as 8 bytes. */
function lengthPrefixed(parts: readonly (string | Uint8Array)[]): Uint8Array {
  const encoder = new TextEncoder();
  const encoded = parts.map((part) => (typeof part === "string" ? encoder.encode(part) : part));
  const bytes = new Uint8Array(encoded.reduce((size, part) => size + 8 + part.length, 0));
  const view = new DataView(bytes.buffer);
  let end = 0;
  for (const part of encoded) {
    view.setBigUint64(end, BigInt(part.length));
    bytes.set(part, end + 8);
    end += 8 + part.length;
  }
  return bytes;
}

/** 4 bytes for each id, the most significant first. */
function bigEndian(tokenIds: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(tokenIds.length * 4);
  const view = new DataView(bytes.buffer);
  tokenIds.forEach((id, position) => {
    view.setInt32(position * 4, id);
  });
  return bytes;
}
