// What a driver does, the same in Node and in a page: requests of tests/conformance/README.md in, answers out.

import { fromBinary } from "@bufbuild/protobuf";
import { Assembler, StreamError } from "../dist/assembler.js";
import { TensorChunkSchema } from "../dist/gen/transparent_llm/v1/tensor_pb.js";
import { InternalError, Tensor, TransparentLlmError } from "../dist/index.js";
import { errorOfStatus } from "../dist/status.js";
import { decodeBase64, encodeBase64 } from "./base64.js";
import { editOf, swept } from "./edits.js";
import { generated } from "./generating.js";
import { differentiated } from "./gradients.js";

/** @typedef {import("../dist/index.js").RemoteTransparentLlm} Client */
/** @typedef {import("../dist/index.js").ReadOptions} ReadOptions */
/** @typedef {Record<string, any>} Request */

/**
 * What differs between Node and a page.
 *
 * @typedef {object} Surroundings
 * @property {string} client
 * @property {string} version
 * @property {(target: string, options: Record<string, any>) => Client} connect
 */

/** Number of arguments before the options, by the name of the method. */
const ARGUMENTS = {
  model_info: 0,
  server_info: 0,
  is_serving: 0,
  run: 1,
  run_tokens: 1,
  effects: 0,
  compare: 0,
  generate: 0,
  gradients: 0,
  sweep: 0,
  release: 0,
  batch_size: 0,
  tokens: 0,
  mask: 0,
  tokens_to_strings: 1,
  last: 0,
  to_tokens: 1,
  to_str_tokens: 1,
  to_single_token: 1,
  describe_run: 0,
  logits: 0,
  unembed: 2,
  residual_in: 1,
  residual_after_attn: 1,
  residual_out: 1,
  ffn_out: 1,
  decomposed_ffn_out: 3,
  neuron_activations: 3,
  neuron_output: 2,
  attention_matrix: 3,
  attention_output: 4,
  decomposed_attn: 2,
  fetch: 1,
  fetch_parts: 1,
  plan: 1,
};

/** Number of indices of the analyses, which may be followed by an object of what has a name. */
const ANALYSES = {
  layer_lens: 2,
  token_logprobs: 1,
  attn_contributions: 2,
  contribution_edges: 2,
  contribution_edges_to: 2,
  neuron_contributions: 3,
  logit_terms: 3,
  logit_attribution: 4,
  source_attribution: 4,
  neuron_attribution: 4,
  attention_matrices: 2,
  head_scores: 2,
  value_weighted_norms: 2,
  features: 1,
  feature_activations: 1,
  head_weights: 2,
  composition_scores: 0,
  copying_scores: 0,
};

/** What may be larger than a number of JavaScript holds exactly. */
const LARGE_SEED = /("seed": ?)(-?\d{17,})/g;

/**
 * A request, in which large seeds are bigints.
 *
 * @param {string} line
 * @returns {Request}
 */
function parsedLine(line) {
  const isSeed = (/** @type {string} */ key, /** @type {unknown} */ value) =>
    key === "seed" && typeof value === "string";
  return JSON.parse(line.replace(LARGE_SEED, '$1"$2"'), (key, value) => (isSeed(key, value) ? BigInt(value) : value));
}

/** The clients of one driver, by their names. */
export class Operations {
  /** @type {Map<string, Client>} */
  #clients = new Map();
  #surroundings;

  /** @param {Surroundings} surroundings */
  constructor(surroundings) {
    this.#surroundings = surroundings;
  }

  /**
   * The line that answers a line.
   *
   * @param {string} line
   */
  async answer(line) {
    /** @type {Request} */
    let request = {};
    try {
      request = parsedLine(line);
      return JSON.stringify({ id: request["id"], ok: await this.#do(request) });
    } catch (error) {
      return JSON.stringify({ id: request["id"] ?? null, error: described(error) });
    }
  }

  /** @param {Request} request */
  async #do({ op, ...request }) {
    switch (op) {
      case "hello":
        return { client: this.#surroundings.client, version: this.#surroundings.version };
      case "connect":
        this.#clients.set(nameOf(request), this.#connected(request));
        return {};
      case "copy":
        this.#clients.set(request["to"], this.#client(request).copy());
        return {};
      case "call":
        return call(this.#client(request), request, (name) => this.#client({ llm: name }));
      case "time":
        return time(this.#client(request), request);
      case "close":
        this.#client(request).close();
        return {};
      case "decode":
        return decode(request);
      case "decode_error":
        return { error: decodedError(request) };
      default:
        throw new Error(`there is no op ${op}`);
    }
  }

  /** @param {Request} request */
  #connected({ target, options: { targets, ...options } = {} }) {
    return this.#surroundings.connect(targets ?? target, {
      ...options,
      timeoutMs: (options.timeout_s ?? 60) * 1000,
      maxBytes: options.max_bytes,
      reconnectS: options.reconnect_s,
      cacheBytes: options.cache_bytes ?? 0, // scenarios count what a server was sent
    });
  }

  /** @param {Request} request */
  #client(request) {
    const client = this.#clients.get(nameOf(request));
    if (client === undefined) {
      throw new Error(`there is no client ${nameOf(request)}; connect it first`);
    }
    return client;
  }
}

/** @param {Request} request */
function nameOf(request) {
  return request["llm"] ?? "main";
}

/**
 * @param {Client} client
 * @param {Request} request
 * @param {(name: string) => Client} clientOf
 */
async function call(client, request, clientOf) {
  const { method, args = [], cancel_after_s: cancelAfterS } = request;
  if (!Object.hasOwn(ARGUMENTS, method) && !Object.hasOwn(ANALYSES, method)) {
    throw new Error(`there is no method ${method}`);
  }
  /** @type {[number, number][]} */
  const progress = [];
  const canceller = new AbortController();
  const timer = cancelAfterS === undefined ? undefined : setTimeout(() => canceller.abort(), cancelAfterS * 1000);
  const edits = request["edits"]?.map((/** @type {any} */ edit) => editOf(edit, clientOf));
  /** @type {ReadOptions & import("../dist/index.js").TextOptions & import("../dist/index.js").RunOptions} */
  const options = {
    ...(edits && { edits }),
    addBos: ["to_tokens", "to_str_tokens"].includes(method) ? (args[1] ?? undefined) : undefined,
    slices: slicesOf(request["slices"]),
    dtype: request["dtype"] ?? undefined,
    signal: canceller.signal,
    onProgress: ({ receivedBytes, totalBytes }) => progress.push([receivedBytes, totalBytes]),
  };
  const { [method]: count = 0 } = /** @type {Record<string, number>} */ ({ ...ARGUMENTS, ...ANALYSES });
  const given = Array.from({ length: count }, (_, i) => argument(method, args[i]));
  if (Object.hasOwn(ANALYSES, method)) {
    Object.assign(options, camelKeys(args[count] ?? {}));
  }
  try {
    if (method === "sweep") {
      return { parts: encodedParts({ ...(await swept(client, request, clientOf, canceller.signal)) }) };
    }
    if (method === "gradients") {
      const found = await differentiated(client, request, clientOf, canceller.signal);
      return {
        parts: Object.fromEntries(Object.entries(found).map(([name, tensor]) => [name, encodedTensor(tensor)])),
      };
    }
    if (method === "compare") {
      const { other, from_pos: fromPos } = request;
      return { value: (await client.compare(clientOf(other), { fromPos, signal: canceller.signal })).map(encodedRow) };
    }
    if (method === "generate") {
      return { value: await generated(client, request["generation"], options) };
    }
    const result = await /** @type {any} */ (client)[camelCase(method)](...given, options);
    return { ...encoded(client, method, result), ...(request["progress"] && { progress }) };
  } finally {
    clearTimeout(timer);
  }
}

/**
 * @param {Client} client
 * @param {Request} request
 */
async function time(client, { method, args = [], times }) {
  /** @type {number[]} */
  const seconds = [];
  for (let left = times; left > 0; left -= 1) {
    const started = performance.now();
    await /** @type {any} */ (client)[camelCase(method)](...args);
    seconds.push((performance.now() - started) / 1000);
  }
  return { seconds };
}

/**
 * @param {string} method
 * @param {any} given
 */
function argument(method, given) {
  if (["fetch", "fetch_parts", "plan"].includes(method) && Array.isArray(given)) {
    return given.map((read) => (Array.isArray(read) ? [camelCase(read[0]), ...read.slice(1).map(camelKeys)] : read));
  }
  const isTensor = typeof given === "object" && given !== null && "dtype" in given;
  return isTensor ? new Tensor({ ...given, bytes: decodeBase64(given.data) }) : given;
}

/** @param {Record<string, any> | undefined} slices */
function slicesOf(slices) {
  const parts = Object.entries(slices ?? {});
  return Object.fromEntries(
    parts.map(([axis, part]) => [axis, Array.isArray(part) ? { start: part[0], stop: part[1], step: part[2] } : part]),
  );
}

/**
 * @param {Client} client
 * @param {string} method
 * @param {any} result
 */
function encoded(client, method, result) {
  if (result instanceof Tensor) {
    return { tensor: encodedTensor(result) };
  }
  if (Object.hasOwn(ANALYSES, method)) {
    return { parts: encodedParts(result) };
  }
  switch (method) {
    case "fetch":
      return { tensors: result.map(encodedTensor) };
    case "fetch_parts":
      return {
        values: result.map((/** @type {ReadonlyMap<string, Tensor>} */ parts) =>
          encodedParts(Object.fromEntries([...parts])),
        ),
      };
    case "plan":
      return { value: result.map(encodedPlan) };
    case "run":
    case "run_tokens":
      return { value: { run_id: client.runId } };
    case "describe_run":
      return {
        value: result.map((/** @type {import("../dist/index.js").TokenAt} */ { row, pos, id, text }) => [
          row,
          pos,
          id,
          text,
        ]),
      };
    case "effects":
      return {
        value: result.map((/** @type {Record<string, any>} */ effect) =>
          Object.fromEntries(Object.entries(effect).map(([name, value]) => [snakeCase(name), value])),
        ),
      };
    case "model_info":
      return { value: Object.fromEntries(Object.entries(result).map(([name, value]) => [snakeCase(name), value])) };
    case "server_info":
      return { value: encodedServer(result) };
    default:
      return { value: result ?? null };
  }
}

/** @param {import("../dist/index.js").RowComparison} row */
function encodedRow({ topChanged: _, ...row }) {
  return Object.fromEntries(Object.entries(row).map(([name, value]) => [snakeCase(name), value]));
}

/** @param {import("../dist/index.js").PlannedRead} read */
function encodedPlan({ name, shape, dims, dtype, bytes, transferBytes }) {
  return { name: snakeCase(name), shape, dims, dtype, bytes, transfer_bytes: transferBytes };
}

/** @param {import("../dist/index.js").ServerInfo} info */
function encodedServer({ apiVersion, features, models }) {
  const described = models.map(({ name, digest, nCtx, dtype }) => ({
    name,
    digest,
    n_ctx: nCtx,
    dtype: dtype ?? null,
  }));
  return { api_version: apiVersion, features, models: described };
}

/** @param {Record<string, Tensor | undefined>} parts */
function encodedParts(parts) {
  const encoded = Object.entries(parts).map(([name, tensor]) => [snakeCase(name), tensor && encodedTensor(tensor)]);
  return Object.fromEntries(encoded.filter(([, tensor]) => tensor !== undefined));
}

/** @param {Tensor} tensor */
function encodedTensor(tensor) {
  const values = new DataView(new ArrayBuffer(tensor.length * 8));
  tensor.toFloat64().forEach((value, i) => {
    values.setFloat64(i * 8, value, true);
  });
  return {
    dtype: tensor.dtype,
    shape: tensor.shape,
    dims: tensor.dims,
    data: encodeBase64(tensor.bytes),
    values: encodeBase64(new Uint8Array(values.buffer)),
  };
}

/** @param {Request} request */
function decode({ streams, max_bytes: maxBytes }) {
  const assembler = new Assembler(maxBytes ?? undefined);
  /** @type {{ offset: number, etag: string }[]} */
  const resumes = [];
  try {
    streams.forEach((/** @type {string[]} */ messages, /** @type {number} */ i) => {
      if (i > 0) {
        assembler.resume();
        resumes.push({ offset: assembler.received, etag: assembler.etag });
      }
      for (const message of messages) {
        assembler.add(parsed(decodeBase64(message)));
      }
    });
    const tensors = assembler.tensors().map(({ name, tensor }) => ({ name, ...encodedTensor(tensor) }));
    return { tensors, resumes };
  } catch (error) {
    throw error instanceof StreamError ? new InternalError(error.message) : error;
  }
}

/** @param {Uint8Array} message */
function parsed(message) {
  try {
    return fromBinary(TensorChunkSchema, message);
  } catch (error) {
    throw new StreamError(`a message that is not a TensorChunk: ${error}`);
  }
}

/** @param {Request} request */
function decodedError({ code, message, details }) {
  const bytes = details === null || details === undefined ? undefined : decodeBase64(details);
  return described(errorOfStatus({ code, message, details: bytes }, "the server"));
}

/** @param {unknown} error */
function described(error) {
  if (error instanceof TransparentLlmError) {
    const { name, reason, message, metadata, retryAfterS } = error;
    return { class: name, reason, message, metadata, retry_after_s: retryAfterS ?? null };
  }
  const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { class: "DriverError", reason: "DRIVER", message, metadata: {}, retry_after_s: null };
}

/** @param {any} given */
function camelKeys(given) {
  const isObject = typeof given === "object" && given !== null && !Array.isArray(given);
  return isObject ? Object.fromEntries(Object.entries(given).map(([name, value]) => [camelCase(name), value])) : given;
}

/** @param {string} name */
function camelCase(name) {
  return String(name).replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());
}

/** @param {string} name */
function snakeCase(name) {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
