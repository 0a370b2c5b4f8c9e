/** One run on a server, and what the page reads of it. */

import { connect, type ModelInfo, type RemoteTransparentLlm, type Tensor } from "transparent-llm/web";

/** What a layer would say next at a position. */
export interface Guess {
  readonly layer: number;
  readonly pos: number;
  readonly token: string;
  readonly probability: number;
}

/** A head of a layer. */
export interface Choice {
  readonly layer: number;
  readonly head: number;
}

/** Browsers open six connections to a server that speaks HTTP/1.1. */
const CALLS_AT_ONCE = 6;

/** A run of one sentence. */
export class Session {
  readonly model: ModelInfo;
  /** The text of each token. */
  readonly tokens: readonly string[];
  readonly #llm: RemoteTransparentLlm;
  /** Token id -> its text, as far as it was asked for. */
  readonly #texts = new Map<number, string>();

  private constructor(llm: RemoteTransparentLlm, model: ModelInfo, tokens: readonly string[]) {
    this.#llm = llm;
    this.model = model;
    this.tokens = tokens;
  }

  /** Run a sentence. */
  static async begin(server: string, sentence: string, signal: AbortSignal): Promise<Session> {
    const llm = connect(server);
    const model = await llm.modelInfo({ signal });
    await llm.run([sentence], { signal });
    const tokens = await llm.tokensToStrings(llm.tokens().data as BigInt64Array, { signal });
    return new Session(llm, model, tokens);
  }

  /** End what is still being read. */
  close(): void {
    this.#llm.close();
  }

  /** How much each position looks at each other one. [query_pos key_pos] */
  attention({ layer, head }: Choice, signal: AbortSignal): Promise<Tensor> {
    return this.#llm.attentionMatrix(0, layer, head, { signal });
  }

  /** The favourite next token of each layer at each position, told one by one. */
  async lens(signal: AbortSignal, tell: (guess: Guess) => void): Promise<void> {
    const layers = Array.from({ length: this.model.nLayers }, (_, layer) => layer);
    const streams = await this.#llm.fetch(
      layers.map((layer) => ["residualOut", layer]),
      { signal },
    );
    const places = layers.flatMap((layer) => this.tokens.map((_, pos) => ({ layer, pos })));
    let hasFailed = false; // then nothing more is told
    const work = async (): Promise<void> => {
      for (let place = places.shift(); place !== undefined; place = places.shift()) {
        const { layer, pos } = place;
        const vector = rowOf(streams[layer] as Tensor, pos);
        const [id, probability] = favourite((await this.#llm.unembed(vector, true, { signal })).toFloat32());
        const token = await this.#textOf(id, signal);
        if (!hasFailed) {
          tell({ layer, pos, token, probability });
        }
      }
    };
    try {
      await Promise.all(Array.from({ length: CALLS_AT_ONCE }, work));
    } catch (error) {
      hasFailed = true;
      throw error;
    } finally {
      places.length = 0; // when one fails, the others begin nothing more
    }
  }

  async #textOf(id: number, signal: AbortSignal): Promise<string> {
    const known = this.#texts.get(id);
    if (known !== undefined) {
      return known;
    }
    const [text = ""] = await this.#llm.tokensToStrings([id], { signal });
    this.#texts.set(id, text);
    return text;
  }
}

/** Of a tensor [batch pos d_model] of one sentence. */
function rowOf(stream: Tensor, pos: number): Float32Array {
  const width = stream.shape[2] as number;
  return stream.toFloat32().subarray(pos * width, (pos + 1) * width);
}

/** The index of the largest logit, and its share of the softmax. */
function favourite(logits: Float32Array): [number, number] {
  let best = 0;
  for (let id = 1; id < logits.length; id++) {
    best = (logits[id] as number) > (logits[best] as number) ? id : best;
  }
  const largest = logits[best] as number;
  const sum = logits.reduce((total, logit) => total + Math.exp(logit - largest), 0);
  return [best, 1 / sum];
}
