/** Text that a model goes on with, token by token; afterwards it is run, so that everything inside of it can be read. */

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { StreamError } from "./assembler.js";
import type { Chat } from "./chat.js";
import type { RemoteTransparentLlm } from "./client.js";
import { InvalidRequestError, TooLargeError, UnavailableError } from "./errors.js";
import {
  FinishReason,
  type GeneratedRun,
  type GeneratedToken,
  type GenerateRequest,
  GenerateRequestSchema,
  type GenerateResponse,
} from "./gen/transparent_llm/v1/generation_pb.js";
import { checkedEdits, type Edit } from "./interventions/edit.js";
import type { RunIdOf } from "./interventions/vector.js";
import { legible } from "./legible.js";
import type { CallOptions } from "./options.js";
import { type RunInput, requireText, tokenIdsOf } from "./run_input.js";

const MOST_STOPS = 16;
const LONGEST_STOP_BYTES = 256;
const MOST_TOP_LOGPROBS = 20;
const [COLDEST, HOTTEST] = [0.01, 100];
const MOST_CHARACTERS = 1000;

/** Why a row has no more tokens: a stop string or token, as many as were asked for, or a token that ends texts. */
export type Finished = "stop" | "length" | "eos";

const FINISHED: ReadonlyMap<FinishReason, Finished> = new Map([
  [FinishReason.STOP, "stop"],
  [FinishReason.LENGTH, "length"],
  [FinishReason.EOS, "eos"],
]);

/** The token of a row in one step. */
export interface NextToken {
  readonly tokenId: number;
  /** Of it by itself. */
  readonly text: string;
  /** Natural, as the model has it: before temperature, topK and topP. */
  readonly logprob: number;
  /** Why it is the last of its row; undefined if it is not. */
  readonly finished: Finished | undefined;
  /** The likeliest tokens, and their log-probabilities. */
  readonly topIds: readonly number[];
  readonly topLogprobs: readonly number[];
}

/** What came next: of each row a token, or undefined where it is finished. */
export type GenerationStep = readonly (NextToken | undefined)[];

/** Of `generate`. */
export interface GenerateOptions extends CallOptions {
  /** Of each row. Default: 20. */
  readonly maxNewTokens?: number | undefined;
  /** 0, the default: the likeliest token each time. Else 0.01 to 100. */
  readonly temperature?: number | undefined;
  /** Only so many of the likeliest tokens are drawn from. */
  readonly topK?: number | undefined;
  /** Only the likeliest tokens are drawn from that have this probability together: over 0, at most 1. */
  readonly topP?: number | undefined;
  /** Of what is drawn. Default: 0. */
  readonly seed?: number | bigint | undefined;
  /** Texts and token ids that end a row, 16 of each at most. */
  readonly stop?: readonly (string | number)[] | undefined;
  /** Made in every step, and in the run. Positions are all, or some of the prompt. */
  readonly edits?: readonly Edit[] | undefined;
  /** How many of the likeliest tokens are told beside each one, 20 at most. Default: 0. */
  readonly topLogprobs?: number | undefined;
  /** Called with each step as it comes. */
  readonly onStep?: ((step: GenerationStep) => void) | undefined;
}

/** Where a generation begins: rows of sentences or token ids, or one conversation. */
export type Prompts = RunInput | Chat;

/** One generation under way, which holds what comes to what was asked for. */
export class Generation {
  readonly edits: readonly Edit[];
  readonly #fields: Fields;
  readonly #input: Prompts;
  readonly #most: number;
  readonly #mostTop: number;
  readonly #onStep: (step: GenerationStep) => void;
  readonly #tokens: number[][];
  readonly #goingOn: Set<number>;
  #rows: readonly (readonly number[])[] | undefined;

  /**
   * @throws InvalidRequestError an option that makes no sense.
   * @throws TooLargeError too many stops, top log-probabilities or edits.
   */
  constructor(input: Prompts, options: GenerateOptions) {
    const { maxNewTokens = 20, temperature = 0, topK, topP, seed = 0, stop = [], topLogprobs = 0 } = options;
    requireCount("maxNewTokens", maxNewTokens, 1);
    requireCount("topLogprobs", topLogprobs, 0);
    requireFew("topLogprobs", topLogprobs, MOST_TOP_LOGPROBS);
    requireChoice(temperature, topK, topP);
    const { stopStrings, stopTokenIds } = stopsOf(stop);
    this.edits = checkedEdits(options.edits ?? []);
    requireMovable(this.edits);
    this.#fields = {
      ...{ maxNewTokens, temperature, topLogprobs, stopStrings, stopTokenIds, ...promptsOf(input) },
      ...{ topK: topK ?? 0, seed: seedOf(seed), ...(topP !== undefined && { topP }) },
    };
    [this.#input, this.#most, this.#mostTop] = [input, maxNewTokens, topLogprobs];
    this.#onStep = options.onStep ?? (() => {});
    const nRows = "messages" in input ? 1 : "sentences" in input ? input.sentences.length : input.tokenIds.length;
    this.#tokens = Array.from({ length: nRows }, () => []);
    this.#goingOn = new Set(this.#tokens.keys());
  }

  /** Objects whose current runs are meant. */
  get sources(): readonly RemoteTransparentLlm[] {
    return this.edits.flatMap(({ sources }) => sources);
  }

  /** @throws UnavailableError some steps have come, and no server knows how to go on behind them. */
  request(model: string, runIdOf: RunIdOf): GenerateRequest {
    const steps = Math.max(0, ...this.#tokens.map(({ length }) => length));
    if (steps > 0) {
      throw new UnavailableError(
        `the server was lost after ${steps} of at most ${this.#most} steps of a generation; generate again, or go on ` +
          "from the tokens that have come",
        { metadata: { steps: String(steps) } },
      );
    }
    const edits = this.edits.map((edit) => edit.toWire(runIdOf));
    return create(GenerateRequestSchema, { ...this.#fields, model, edits });
  }

  /**
   * Take a message of the answer; whether it was a step.
   *
   * @throws StreamError it is not what was to come.
   */
  take({ tokens, run }: GenerateResponse): boolean {
    if (this.#rows !== undefined || (run !== undefined) === this.#goingOn.size > 0) {
      throw new StreamError("a run before the last token, or a token after it");
    }
    if (run !== undefined) {
      this.#rows = this.#rowsOf(run);
      return false;
    }
    const rows = new Set(tokens.map(({ row }) => row));
    if (tokens.length !== this.#goingOn.size || rows.size !== tokens.length || !isWithin(rows, this.#goingOn)) {
      throw new StreamError("a step that has not one token of each row that is not finished");
    }
    const step: (NextToken | undefined)[] = this.#tokens.map(() => undefined);
    for (const token of tokens) {
      step[token.row] = this.#next(token);
    }
    this.#onStep(step);
    return true;
  }

  /** The rows that are to be run. @throws StreamError the answer ended before they came. */
  result(): readonly (readonly number[])[] {
    if (this.#rows === undefined) {
      throw new StreamError("a generation that ended before its run had come");
    }
    return this.#rows;
  }

  #next(token: GeneratedToken): NextToken {
    const { row, tokenId, text, logprob, topIds, topLogprobs } = token;
    const ofRow = this.#tokens[row] as number[];
    const finished = FINISHED.get(token.finished);
    ofRow.push(tokenId);
    const isLast = finished !== undefined;
    if (tokenId < 0 || topIds.length > this.#mostTop || topIds.length !== topLogprobs.length) {
      throw new StreamError(`token ${tokenId} with ${topIds.length} likeliest ones`);
    }
    if (!isLast && (token.finished !== FinishReason.UNSPECIFIED || ofRow.length >= this.#most)) {
      throw new StreamError(`${ofRow.length} tokens of a row, and it is not finished`);
    }
    if (isLast) {
      this.#goingOn.delete(row);
    }
    return { tokenId, text: legible(text, MOST_CHARACTERS), logprob, finished, topIds, topLogprobs };
  }

  #rowsOf(run: GeneratedRun): readonly (readonly number[])[] {
    const rows = run.rows.map(({ tokenIds }) => tokenIds);
    const areThose = rows.length === this.#tokens.length && rows.every((row, number) => this.#isContinued(row, number));
    if (!areThose) {
      throw new StreamError("a run whose rows are not the prompts and what was generated");
    }
    return rows;
  }

  #isContinued(row: readonly number[], number: number): boolean {
    const added = (this.#tokens[number] ?? []).slice(0, -1);
    const prompt = row.slice(0, row.length - added.length);
    const sent = "tokenIds" in this.#input ? this.#input.tokenIds[number] : undefined;
    const isSent = sent === undefined || (sent.length === prompt.length && sent.every((id, i) => id === prompt[i]));
    return (
      prompt.length > 0 && isSent && row.every((id) => id >= 0) && added.every((id, i) => id === row[prompt.length + i])
    );
  }
}

type Fields = MessageInitShape<typeof GenerateRequestSchema>;

function promptsOf(input: Prompts): Pick<Fields, "prompts" | "messages"> {
  if ("messages" in input) {
    return { messages: input.messages.map(({ role, content }) => ({ role, content })) };
  }
  const prompts =
    "sentences" in input
      ? input.sentences.map((value) => ({ prompt: { case: "text" as const, value } }))
      : input.tokenIds.map((ids) => ({ prompt: { case: "tokens" as const, value: { tokenIds: [...ids] } } }));
  return { prompts };
}

/** Texts and token ids that end a row. */
function stopsOf(stop: readonly (string | number)[]): { stopStrings: string[]; stopTokenIds: number[] } {
  if (!Array.isArray(stop)) {
    throw new InvalidRequestError(`stop is an array of texts and token ids, got ${typeof stop}`);
  }
  const stopStrings = stop.filter((each): each is string => typeof each === "string");
  const stopTokenIds = tokenIdsOf(stop.filter((each) => typeof each !== "string"));
  requireFew("stop strings", stopStrings.length, MOST_STOPS);
  requireFew("stop tokens", stopTokenIds.length, MOST_STOPS);
  for (const text of stopStrings) {
    requireText("a stop string", text);
    if (text === "") {
      throw new InvalidRequestError("a stop string is empty: every text has it");
    }
    requireFew("bytes of one stop string", new TextEncoder().encode(text).length, LONGEST_STOP_BYTES);
  }
  return { stopStrings, stopTokenIds };
}

/** @throws InvalidRequestError the place of an edit would be another one in each step. */
function requireMovable(edits: readonly Edit[]): void {
  for (const edit of edits) {
    const { positions } = edit.toWire(() => "");
    const isMoving =
      positions.case === "lastPosition" ||
      (positions.case === "chosenPositions" && positions.value.indices.some((position) => position < 0));
    if (isMoving) {
      throw new InvalidRequestError(
        "the last token is another one in every step of a generation: edits name positions of the prompt from 0, or " +
          '"all"',
      );
    }
  }
}

function requireChoice(temperature: number, topK: number | undefined, topP: number | undefined): void {
  if (temperature !== 0 && !(temperature >= COLDEST && temperature <= HOTTEST)) {
    throw new InvalidRequestError(`temperature is ${temperature}: it must be 0, or from ${COLDEST} to ${HOTTEST}`);
  }
  if (topK !== undefined) {
    requireCount("topK", topK, 1);
  }
  if (topP !== undefined && !(topP > 0 && topP <= 1)) {
    throw new InvalidRequestError(`topP is ${topP}: it must be over 0 and at most 1`);
  }
}

function requireCount(name: string, count: number, least: number): void {
  if (!Number.isSafeInteger(count) || count < least || count >= 2 ** 32) {
    throw new InvalidRequestError(`${name} is ${count}: it must be a whole number of at least ${least}`);
  }
}

function requireFew(what: string, count: number, most: number): void {
  if (count > most) {
    throw new TooLargeError(`${count} ${what}, at most ${most} can be asked for`, {
      metadata: { needed: String(count), allowed: String(most) },
    });
  }
}

function seedOf(seed: number | bigint): bigint {
  const isWhole = typeof seed === "bigint" || Number.isSafeInteger(seed);
  if (!isWhole || seed < 0 || BigInt(seed) >= 2n ** 64n) {
    throw new InvalidRequestError(`seed is ${seed}: it must be a whole number from 0, below 2 ** 64`);
  }
  return BigInt(seed);
}

function isWithin(rows: ReadonlySet<number>, all: ReadonlySet<number>): boolean {
  return [...rows].every((row) => all.has(row));
}
