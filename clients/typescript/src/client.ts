/** `RemoteTransparentLlm`: a language model on another machine, everything inside it readable. */

import { create } from "@bufbuild/protobuf";
import type { Transport } from "@connectrpc/connect";
import type { NamedTensor } from "./assembler.js";
import { Calls } from "./calls.js";
import { type ChatMessage, chatOf } from "./chat.js";
import { Circuits } from "./circuits.js";
import type { CompareOptions, RowComparison } from "./comparison.js";
import { isFloating, wireOfFloating } from "./dtypes.js";
import { InvalidRequestError, NotRunError } from "./errors.js";
import { Expected } from "./expected.js";
import { Features } from "./features.js";
import {
  DatasetRequestSchema,
  ModelInfoRequestSchema,
  ReleaseRunRequestSchema,
  ServerInfoRequestSchema,
  TransparentLlmService,
} from "./gen/transparent_llm/v1/service_pb.js";
import { type GenerateOptions, Generation, type Prompts } from "./generation.js";
import { Differentiation, type Gradients, type GradientsOptions, type GradientsPlan } from "./gradients.js";
import { checkedEdits } from "./interventions/edit.js";
import type { EditEffect } from "./interventions/effect.js";
import { Sweep, type SweepOptions, type SweepPlan, type SweepValues } from "./interventions/sweep.js";
import { KeptValues } from "./kept_values.js";
import { type Index, indexFields, type Method, MODEL_READS, READS, type ReadName, valueAxes } from "./methods.js";
import {
  type CallOptions,
  type ClientOptions,
  type ConfigDefaults,
  configured,
  type ReadOptions,
  type RunOptions,
  type TextOptions,
} from "./options.js";
import type { PlannedRead } from "./plan.js";
import { message, Reader, readOptionsToWire } from "./reader.js";
import {
  type Arrived,
  type CheckedRead,
  checkedRead,
  checkedReads,
  type Read,
  requireOneTensor,
  WHOLE,
} from "./reads.js";
import type { Run } from "./run.js";
import { inputOfSentences, inputOfTokens, type RunInput, type TokenIds, tokenIdsOf } from "./run_input.js";
import { Runs } from "./runs.js";
import type { Scope } from "./scope.js";
import { type ModelInfo, modelInfoOf, type ServerInfo, sentencesOf, serverInfoOf } from "./server_info.js";
import { cut, requireAxes, requireSlices, type Slices } from "./slices.js";
import { Tensor, wireOfTensor } from "./tensor.js";
import { type TopTokensOptions, topTokensRequest, type VectorTokens, vectorTokens } from "./vector_tokens.js";
import { described, lastOf, maskOf, singleToken, stringsOf, type TokenAt, type Tokenized, tokenized } from "./words.js";

const RPCS = TransparentLlmService.method;

/** What lies under a client: how it sends, and what ends when it is closed. */
export interface Connection extends ConfigDefaults {
  readonly transport: Transport;
  /** Called once, by `close`. */
  readonly onClose?: () => void;
}

/** What a client and its copies have in common. */
interface Shared {
  readonly calls: Calls;
  readonly kept: KeptValues;
  readonly reader: Reader;
  readonly runs: Runs;
  readonly features: Features;
}

/**
 * A `TransparentLlm` whose model lives in a server. Every error is a `TransparentLlmError`, but those of your own
 * `onProgress`, which come through.
 *
 * Nothing is sent before the first call. An object has one current run, which its reads are of; `copy` gives another
 * object on the same connection. A read that is under way goes on with the run that it began with.
 */
export class RemoteTransparentLlm extends Circuits {
  readonly #connection: Connection;
  readonly #options: ClientOptions;
  #shared: Shared;
  #run: Run | undefined;
  /** Which call of `run` the current run is of, counted from 1. */
  #runOf = 0;
  /** Calls of `run` so far. */
  #runs = 0;

  /** Use `connect` of `transparent-llm/node` or `transparent-llm/web`, or bring a transport of Connect for gRPC. */
  constructor(connection: Connection, options: ClientOptions = {}) {
    super();
    const config = configured(connection, options);
    const kept = new KeptValues(config.cacheBytes);
    const calls = new Calls(connection.transport, config, () => {
      kept.clear();
      connection.onClose?.();
    });
    const features = new Features(calls);
    this.#shared = { calls, features, kept, reader: new Reader(calls, kept), runs: new Runs(calls, features) };
    this.#connection = connection;
    this.#options = options;
  }

  /** A further object on the same connection, with the same current run until it runs something itself. */
  copy(): RemoteTransparentLlm {
    const twin = new RemoteTransparentLlm(this.#connection, this.#options);
    twin.#shared = this.#shared;
    twin.#become(this.#run);
    return twin;
  }

  /** Close the connection, also of all copies. Calls under way throw `CancelledError`. */
  close(): void {
    this.#shared.calls.close();
  }

  /** What the server serves and allows, and how exact its models were at load. */
  async serverInfo(options: CallOptions = {}): Promise<ServerInfo> {
    const request = create(ServerInfoRequestSchema);
    return serverInfoOf(await this.#within(options, (scope) => this.#calls.unary(RPCS.serverInfo, request, scope)));
  }

  /**
   * The sentences of a data set that the server's operator offers; `serverInfo` names them.
   *
   * @throws InvalidRequestError there is none of this name.
   * @throws NotSupportedError the server is older than data sets.
   */
  async dataset(name: string, options: CallOptions = {}): Promise<readonly string[]> {
    return this.#within(options, async (scope) => {
      await this.#shared.features.require("datasets", scope);
      return sentencesOf(await this.#calls.unary(RPCS.dataset, create(DatasetRequestSchema, { name }), scope));
    });
  }

  /** Whether the server has loaded its models and answers calls: the standard health check, asked once. */
  async isServing(options: CallOptions = {}): Promise<boolean> {
    return this.#within(options, (scope) => this.#calls.isServing(scope));
  }

  /** Shape and name of the model. Works before any run. */
  async modelInfo(options: CallOptions = {}): Promise<ModelInfo> {
    const request = create(ModelInfoRequestSchema, { model: this.#calls.config.model });
    const { info } = await this.#within(options, (scope) => this.#calls.unary(RPCS.modelInfo, request, scope));
    return modelInfoOf(info);
  }

  /**
   * Run sentences as one batch, padded on the right; they are the current run from then on. Of several runs at once
   * the one that was called last stays, whichever is done first. Values that are then read are those of the edited
   * model, where there are edits.
   *
   * @throws InvalidRequestError EMPTY_INPUT: no sentence, or one without a token.
   * @throws TooLargeError TOO_LONG: more tokens than the model or the server takes, or too many edits.
   * @throws NotRunError the source of an edit has run nothing yet.
   * @throws NotSupportedError an edit that this model or an older server cannot make.
   */
  async run(sentences: readonly string[], options: RunOptions = {}): Promise<void> {
    await this.#begin(inputOfSentences(sentences), options);
  }

  /** Run token ids, an array for each row. Nothing is put before them. Otherwise as `run`. */
  async runTokens(rows: readonly TokenIds[], options: RunOptions = {}): Promise<void> {
    await this.#begin(inputOfTokens(rows), options);
  }

  /**
   * Have the model go on with sentences, token by token (`onStep`). Then the current run is that of the prompts and all new
   * tokens but the last, which the model never read. Rows go on as if each were alone.
   *
   * @throws TooLargeError more tokens than the model or the server takes.
   * @throws UnavailableError the server was lost after some steps.
   * @throws NotSupportedError the server or the model cannot.
   */
  async generate(sentences: readonly string[], options: GenerateOptions = {}): Promise<void> {
    await this.#generate(inputOfSentences(sentences), options);
  }

  /** Go on with token ids, an array for each row. Nothing is put before them. Otherwise as `generate`. */
  async generateTokens(rows: readonly TokenIds[], options: GenerateOptions = {}): Promise<void> {
    await this.#generate(inputOfTokens(rows), options);
  }

  /**
   * Answer a conversation, which the chat template of the model's own tokenizer makes a text of. It is one row. Otherwise
   * as `generate`.
   *
   * @throws NotSupportedError the tokenizer has no chat template.
   */
  async generateChat(messages: readonly ChatMessage[], options: GenerateOptions = {}): Promise<void> {
    await this.#generate(chatOf(messages), options);
  }

  /** What each edit of the current run did, in their order. Needs no call. */
  effects(): readonly EditEffect[] {
    return this.#current().effects;
  }

  /**
   * Make the same changes of the current run at one place after another, and look at a few numbers. Nothing of it is stored,
   * and the current run, which has no edits, stays as it is. What a lost connection has brought is kept.
   *
   * @throws NotSupportedError the server knows no sweeps.
   */
  async sweep(plan: SweepPlan, options: SweepOptions = {}): Promise<SweepValues> {
    const { onProgress } = options;
    const [run, sweep] = [this.#current(), new Sweep(plan)];
    const sources = runsOf([sweep], (source) => source.#current());
    const onPart = (): void => onProgress?.(sweep.progress);
    const replace = this.#replace;
    return this.#within(options, (scope) => this.#shared.runs.sweep(run, sweep, sources, scope, { replace, onPart }));
  }

  /**
   * The gradient of a number of each row by what stands at some sites, along a path, or of edges between parts: by one pass
   * there and back for all, a path by as many as it has steps. In a mixture of experts it goes through the experts that were
   * chosen. The current run has no edits of its own, and stays as it is.
   *
   * @throws InvalidRequestError the current run has edits, or something makes no sense.
   * @throws IndexOutOfRangeError a layer, head, neuron, row, position or token that is not there.
   * @throws NotSupportedError the model has nothing at a site, its weights have no gradients, or the server knows none.
   * @throws TooLargeError more than the server computes at once.
   */
  async gradients(plan: GradientsPlan, options: GradientsOptions = {}): Promise<Gradients> {
    const [run, asked] = [this.#current(), new Differentiation(plan)];
    const sources = runsOf([asked], (source) => source.#current(), "the source of gradients");
    const idOf = (source: RemoteTransparentLlm): string => sources.get(source)?.id ?? "";
    return this.#within(options, async (scope) => {
      await this.#shared.features.require("gradients", scope);
      const read = (current: Run): Promise<Gradients> =>
        this.#shared.reader.gradients(current, asked, idOf, options, scope);
      return this.#shared.runs.read(run, scope, read, this.#replace, sources);
    });
  }

  /**
   * What the current run says of the next token beside the current run of another object, row by row, each at its last
   * token, or at each from `fromPos` on too: what edits made of a sentence, or how two sentences differ. Runs that the server
   * lost are made again.
   *
   * @throws NotRunError one of them has none.
   * @throws InvalidRequestError `other` is no client, or its run has more or fewer rows, or, with `fromPos`, other tokens.
   * @throws IndexOutOfRangeError a row has no position `fromPos`.
   * @throws NotFoundError MODEL_CHANGED: another model than that of the other run is served here.
   * @throws NotSupportedError the server knows no comparisons.
   */
  async compare(other: RemoteTransparentLlm, options: CompareOptions = {}): Promise<RowComparison[]> {
    const [run, { fromPos }, replace] = [this.#current(), options, this.#replace];
    const sources = runsOf([{ sources: [other] }], (source) => source.#current(), "what is compared with");
    return this.#within(options, (scope) => this.#shared.runs.compare(run, sources, scope, { replace, fromPos }));
  }

  /** Tell the server that the current run is not needed any more. Reading it again runs it again. */
  async release(options: CallOptions = {}): Promise<void> {
    const { id: runId, key } = this.#current();
    const request = create(ReleaseRunRequestSchema, { runId });
    await this.#within(options, (scope) => this.#calls.unary(RPCS.releaseRun, request, scope, key));
  }

  /** The name of the current run on the server: a hash of model, tokens, edits and owner. */
  get runId(): string {
    return this.#current().id;
  }

  /** Number of rows of the current run. Needs no call. */
  batchSize(): number {
    return this.#current().tokens.shape[0] as number;
  }

  /** Token ids, padded on the right. [batch pos], I64. Needs no call. */
  tokens(options: { readonly slices?: Slices } = {}): Tensor {
    return part("tokens", this.#current().tokens, options.slices);
  }

  /**
   * Where tokens are, and not padding. [batch pos], BOOL. Needs no call.
   *
   * @throws NotSupportedError the served model does not distinguish padding from tokens.
   */
  mask(options: { readonly slices?: Slices } = {}): Tensor {
    return part("mask", maskOf(this.#current()), options.slices);
  }

  /** The text of each token by itself, leading space included. Takes ids, or a tensor of integers [pos]. */
  async tokensToStrings(tokens: Tensor | TokenIds, options: CallOptions = {}): Promise<string[]> {
    const tokenIds = tokenIdsOf(tokens instanceof Tensor ? vectorOf(tokens) : tokens);
    return this.#within(options, (scope) => stringsOf(this.#calls, tokenIds, scope));
  }

  /**
   * The position of the last token of each row, which padding may follow. Needs no call.
   *
   * @throws NotSupportedError the served model does not distinguish padding from tokens.
   */
  last(): number[] {
    return lastOf(maskOf(this.#current()));
  }

  /**
   * Token ids of a text, as `run([text])` would have them. No run is made.
   *
   * @throws InvalidRequestError no text; EMPTY_INPUT: it has no token.
   * @throws TooLargeError TOO_LONG: it is longer than the model's context.
   * @throws NotFoundError MODEL_CHANGED: another model than that of the current run is served by now.
   */
  async toTokens(text: string, options: TextOptions = {}): Promise<number[]> {
    return (await this.#tokenized(text, options)).ids;
  }

  /** The text of each of the tokens that `toTokens` gives; it throws the same. */
  async toStrTokens(text: string, options: TextOptions = {}): Promise<string[]> {
    return (await this.#tokenized(text, options)).strings;
  }

  /**
   * The id of a text that is one token, such as " Mary"; the space in front belongs to it.
   *
   * @throws InvalidRequestError it is several, which the message names. Otherwise as `toTokens`.
   */
  async toSingleToken(text: string, options: CallOptions = {}): Promise<number> {
    return singleToken(text, await this.#tokenized(text, { ...options, addBos: false }));
  }

  /** The tokens of the current run, id beside text: for `console.table`. Padding is left out, where it is known. */
  async describeRun(options: CallOptions = {}): Promise<TokenAt[]> {
    const run = this.#current();
    return this.#within(options, (scope) => described(this.#calls, run, scope));
  }

  /** The model's output. [batch pos d_vocab] */
  async logits(options: ReadOptions = {}): Promise<Tensor> {
    return this.#read("logits", [], options);
  }

  /**
   * Project a vector of the residual stream to the vocabulary. [vocab]
   *
   * @param t d_model elements of a floating type, or some such rows [n d_model], which give [n vocab]; plain numbers
   *   are sent in single precision.
   * @param normalize apply the final norm and the model's own post-processing of logits, so that the last layer's
   *   output gives the model's output. Otherwise: the plain product with the unembedding matrix.
   */
  async unembed(t: Tensor | ArrayLike<number>, normalize: boolean, options: ReadOptions = {}): Promise<Tensor> {
    const tensor = t instanceof Tensor ? t : Tensor.ofFloats(t);
    const rows = tensor.shape.length === 2 ? tensor.shape[0] : undefined;
    return this.#readModel(MODEL_READS.unembed, { t: wireOfTensor(tensor), normalize }, options, rows);
  }

  /**
   * The tokens that a vector of the residual stream speaks for and against: the best and the worst of what `unembed`
   * gives. Works before any run.
   *
   * @param t d_model elements of a floating type; plain numbers are sent in single precision.
   * @throws InvalidRequestError something else, or more tokens than 4096 or the vocabulary has.
   * @throws NotSupportedError the server is of an older version; `unembed` gives all logits.
   * @throws NotFoundError MODEL_CHANGED: another model than that of the current run is served by now.
   */
  async topTokens(t: Tensor | ArrayLike<number>, options: TopTokensOptions = {}): Promise<VectorTokens> {
    const named = { model: this.#calls.config.model, modelDigest: this.#run?.modelDigest ?? "" };
    const request = topTokensRequest(t instanceof Tensor ? t : Tensor.ofFloats(t), options, named);
    return this.#within(options, async (scope) => {
      await this.#shared.features.require("top_tokens", scope);
      return vectorTokens(this.#calls, request, scope);
    });
  }

  /** The residual stream as it enters a layer. [batch pos d_model] */
  async residualIn(layer: number, options: ReadOptions = {}): Promise<Tensor> {
    return this.#read("residualIn", [layer], options);
  }

  /** The residual stream after attention's output was added. [batch pos d_model] */
  async residualAfterAttn(layer: number, options: ReadOptions = {}): Promise<Tensor> {
    return this.#read("residualAfterAttn", [layer], options);
  }

  /** The residual stream as it leaves a layer. [batch pos d_model] */
  async residualOut(layer: number, options: ReadOptions = {}): Promise<Tensor> {
    return this.#read("residualOut", [layer], options);
  }

  /** What the feed-forward part added to the residual stream, bias included. [batch pos d_model] */
  async ffnOut(layer: number, options: ReadOptions = {}): Promise<Tensor> {
    return this.#read("ffnOut", [layer], options);
  }

  /** What each neuron added: activation times output vector. [hidden d_model] */
  async decomposedFfnOut(batchI: number, layer: number, pos: number, options: ReadOptions = {}): Promise<Tensor> {
    return this.#read("decomposedFfnOut", [batchI, layer, pos], options);
  }

  /** Activations right after the activation function. [d_ffn] */
  async neuronActivations(batchI: number, layer: number, pos: number, options: ReadOptions = {}): Promise<Tensor> {
    return this.#read("neuronActivations", [batchI, layer, pos], options);
  }

  /** The raw output weight vector of a neuron. [d_model] Works before any run. */
  async neuronOutput(layer: number, neuron: number, options: ReadOptions = {}): Promise<Tensor> {
    const fields = indexFields(MODEL_READS.neuronOutput, [layer, neuron]);
    return this.#readModel(MODEL_READS.neuronOutput, fields, options);
  }

  /** Attention probabilities after softmax; a row is the position that attends. [query_pos key_pos] */
  async attentionMatrix(batchI: number, layer: number, head: number, options: ReadOptions = {}): Promise<Tensor> {
    return this.#read("attentionMatrix", [batchI, layer, head], options);
  }

  /** What a head, or with a head of null the whole attention, added to the residual stream. [d_model] */
  async attentionOutput(
    batchI: number,
    layer: number,
    pos: number,
    head: number | null = null,
    options: ReadOptions = {},
  ): Promise<Tensor> {
    return this.#read("attentionOutput", [batchI, layer, pos, head], options);
  }

  /** What each source position gave each target position through each head. [target source head d_model] */
  async decomposedAttn(batchI: number, layer: number, options: ReadOptions = {}): Promise<Tensor> {
    return this.#read("decomposedAttn", [batchI, layer], options);
  }

  /**
   * Many values of the current run in one stream, in their order: each is what the method of that name gives. No reads
   * give no values, without a call.
   *
   * @param reads `[["residualIn", 3], ["attentionMatrix", 0, 3, 7], ["logits"]]`; the options are for all of them.
   */
  async fetch(reads: readonly Read[], options: ReadOptions = {}): Promise<Tensor[]> {
    const wanted = checkedReads(reads);
    requireOneTensor(wanted);
    const values = await this.#readMany(wanted, options);
    return values.map((value) => value.get(WHOLE) as Tensor);
  }

  /**
   * As `fetch`, for values of one tensor or of several: of each value its tensors by their names, those of the parts of
   * a value of several, or the method's own where it is one.
   */
  async fetchParts(reads: readonly Read[], options: ReadOptions = {}): Promise<ReadonlyMap<string, Tensor>[]> {
    const wanted = checkedReads(reads);
    const values = await this.#readMany(wanted, options);
    return values.map((value, i) => {
      const whole = value.get(WHOLE);
      return whole === undefined ? value : new Map([[(wanted[i] as CheckedRead).name, whole]]);
    });
  }

  /**
   * What reads of the current run would bring, before anything is computed or sent: of each its shape, type and bytes. It
   * takes what `fetchParts` takes.
   *
   * @throws NotSupportedError the server is of an older version.
   */
  async plan(reads: readonly Read[], options: ReadOptions = {}): Promise<PlannedRead[]> {
    const wanted = checkedReads(reads);
    requireReadOptions(
      options,
      wanted.map(({ name }) => READS[name]),
    );
    return this.#ofRun(options, async (run, scope) => {
      await this.#shared.features.require("plan", scope);
      return this.#shared.reader.plan(run, wanted, options, scope);
    });
  }

  protected override async analysed(read: readonly [string, ...unknown[]], options: ReadOptions): Promise<Arrived> {
    const wanted = checkedRead(read);
    requireReadOptions(options, [READS[wanted.name]]);
    return this.#ofRun(options, (run, scope) => this.#shared.reader.read(run, wanted, options, scope));
  }

  protected override async ofWeights(
    method: Method,
    fields: object,
    options: ReadOptions,
    feature = "circuits",
  ): Promise<Arrived> {
    requireReadOptions(options, [method]);
    const digest = this.#run?.modelDigest ?? "";
    return this.#within(options, async (scope) => {
      await this.#shared.features.require(feature, scope);
      return this.#shared.reader.ofWeights(method, fields, digest, options, scope);
    });
  }

  get #calls(): Calls {
    return this.#shared.calls;
  }

  #within<T>(options: CallOptions, work: (scope: Scope) => Promise<T>): Promise<T> {
    return this.#calls.within(options, work);
  }

  async #tokenized(text: string, options: TextOptions): Promise<Tokenized> {
    const [addBos, digest] = [options.addBos, this.#run?.modelDigest ?? ""];
    return this.#within(options, (scope) => tokenized(this.#calls, text, { addBos, digest, scope }));
  }

  async #read(name: ReadName, indices: readonly Index[], options: ReadOptions): Promise<Tensor> {
    requireReadOptions(options, [READS[name]]);
    const read = { name, indices };
    const value = await this.#ofRun(options, (run, scope) => this.#shared.reader.read(run, read, options, scope));
    return value.get(WHOLE) as Tensor;
  }

  async #readMany(reads: readonly CheckedRead[], options: ReadOptions): Promise<Arrived[]> {
    requireReadOptions(
      options,
      reads.map(({ name }) => READS[name]),
    );
    return this.#ofRun(options, (run, scope) => this.#shared.reader.readMany(run, reads, options, scope));
  }

  async #readModel(method: Method, fields: object, options: ReadOptions, rows?: number): Promise<Tensor> {
    requireReadOptions(options, [method]);
    const { model } = this.#calls.config;
    const request = message(method.rpc.input, { model, ...fields, options: readOptionsToWire(options, method.dims) });
    const expected = new Expected([{ method, options, rows }]);
    const [value] = await this.#within(options, (scope) =>
      this.#calls.tensors(method.rpc, request, expected, scope, "", options.onProgress),
    );
    return (value as NamedTensor).tensor; // a stream without any is no whole one
  }

  readonly #replace = (was: Run, is: Run): void => {
    if (this.#run === was) {
      this.#become(is); // unless another one was begun meanwhile
    }
  };

  #become(run: Run | undefined): void {
    const { kept } = this.#shared;
    if (run !== undefined) {
      kept.hold(run);
    }
    if (this.#run !== undefined) {
      kept.leave(this.#run);
    }
    this.#run = run;
  }

  /** Read from the current run. */
  async #ofRun<T>(options: CallOptions, read: (run: Run, scope: Scope) => Promise<T>): Promise<T> {
    const current = this.#current();
    return this.#within(options, (scope) => this.#shared.runs.read(current, scope, read, this.#replace));
  }

  async #generate(input: Prompts, options: GenerateOptions): Promise<void> {
    const generation = new Generation(input, options);
    const sources = runsOf([generation], (source) => source.#current());
    const { runs } = this.#shared;
    const { rows, key } = await this.#within(options, (scope) => runs.generate(generation, input, sources, scope));
    const { signal, timeoutMs } = options;
    await this.#begin(inputOfTokens(rows), { edits: generation.edits, signal, timeoutMs }, key);
  }

  async #begin(input: RunInput, options: RunOptions, key?: string): Promise<void> {
    const edits = checkedEdits(options.edits ?? []);
    const recipe = { input, edits, sources: runsOf(edits, (source) => source.#current()) };
    const call = ++this.#runs;
    const run = await this.#within(options, (scope) => this.#shared.runs.make(recipe, scope, key));
    if (call > this.#runOf) {
      this.#become(run);
      this.#runOf = call; // unless one that was called later is done already
    }
  }

  #current(): Run {
    if (this.#run === undefined) {
      throw new NotRunError("nothing has been run yet: call run([sentence, ...]) first");
    }
    return this.#run;
  }
}

/** What edits take from, or other calls, as it is now. */
function runsOf(
  edits: readonly { readonly sources: readonly RemoteTransparentLlm[] }[],
  currentOf: (source: RemoteTransparentLlm) => Run,
  what = "the source of an edit",
): ReadonlyMap<RemoteTransparentLlm, Run> {
  const found = new Map<RemoteTransparentLlm, Run>();
  for (const source of edits.flatMap(({ sources }) => sources)) {
    if (!(source instanceof RemoteTransparentLlm)) {
      throw new InvalidRequestError(`${what} is a client of the same server with a current run, got ${typeof source}`);
    }
    found.set(source, currentOf(source));
  }
  return found;
}

function requireReadOptions({ slices, dtype }: ReadOptions, methods: readonly Method[]): void {
  if (dtype !== undefined) {
    wireOfFloating(dtype);
  }
  requireSlices(slices ?? {});
  for (const method of methods) {
    requireAxes(method.header, valueAxes(method), slices ?? {});
  }
}

function part(name: string, tensor: Tensor, slices: Slices = {}): Tensor {
  requireSlices(slices);
  requireAxes(name, tensor.dims, slices);
  return cut(tensor, slices);
}

function vectorOf(tokens: Tensor): TokenIds {
  if (tokens.shape.length !== 1) {
    throw new InvalidRequestError(`tokensToStrings takes a tensor [pos], got the shape [${tokens.shape.join(", ")}]`, {
      reason: "INVALID_SHAPE",
      metadata: { expected: "1 axis", got: `${tokens.shape.length} axes` },
    });
  }
  return isFloating(tokens.dtype) ? tokens.toFloat64() : (tokens.data as TokenIds);
}
