/** What is known of the tensors of a stream before they come, so that whatever else is sent is refused by its header. */

import { dtypeOfWire, isFloating } from "./dtypes.js";
import { InternalError } from "./errors.js";
import type { TensorHeader } from "./gen/transparent_llm/v1/tensor_pb.js";
import { quoted } from "./legible.js";
import { FIRST_FACTORS, type Method, READS } from "./methods.js";
import type { ReadOptions } from "./options.js";
import type { Run } from "./run.js";
import { countOf } from "./slices.js";

/** At most: two factors and their gain. */
const TENSORS_OF_A_VALUE = 3;

/** Axes of each factor. A gain may be a scalar too. */
const FACTORS: ReadonlyMap<string, readonly string[]> = new Map([
  ["decomposed_attn.pattern", ["head", "target", "source"]],
  ["decomposed_attn.value_out", ["source", "head", "d_model"]],
  ["decomposed_attn.gain", ["target", "d_model"]],
  ["decomposed_ffn_out.activations", ["d_ffn"]],
  ["decomposed_ffn_out.gain", ["d_model"]],
  ["decomposed_ffn_out.spans", ["span", "bound"]],
]);

/** Axes that are as long as the run, and which of its two they are. */
const OF_RUN: ReadonlyMap<string, 0 | 1> = new Map([
  ["batch", 0],
  ["pos", 1],
  ["query_pos", 1],
  ["key_pos", 1],
  ["target", 1],
  ["source", 1],
]);

/** What is known of one value. */
export interface Expectation {
  readonly method: Method;
  readonly options: ReadOptions;
  /** Undefined for a value of the model alone. */
  readonly run?: Run | undefined;
  /** Of axes of the model, as far as they are known. */
  readonly lengths?: ReadonlyMap<string, number> | undefined;
  /** Whether its factors will do. */
  readonly isFactored?: boolean | undefined;
}

/** Of all values of a stream. */
export class Expected {
  /** How many tensors there can be. */
  readonly most: number;
  readonly #byHeader = new Map<string, Expectation>();

  constructor(expectations: readonly Expectation[]) {
    let most = 0;
    for (const each of expectations) {
      const { header } = each.method;
      const isFactored = each.isFactored || this.#byHeader.get(header)?.isFactored;
      this.#byHeader.set(header, { ...each, isFactored });
      most += each.isFactored ? TENSORS_OF_A_VALUE : 1;
    }
    this.most = most;
  }

  /** @throws InternalError the tensor was not asked for, or has other axes, another length or another type than it must. */
  check(header: TensorHeader): void {
    const [method, factor] = splitAtDot(header.name);
    const expectation = this.#byHeader.get(method);
    if (expectation === undefined || (factor !== "" && !expectation.isFactored)) {
      throw new InternalError(`the server sent ${quoted(header.name)}, which was not asked for`);
    }
    const dims = factor === "" ? expectation.method.dims : FACTORS.get(header.name);
    if (dims === undefined) {
      throw new InternalError(`the server sent ${quoted(header.name)}, which is not a factor of ${method}`);
    }
    const isScalar = factor === "gain" && header.dims.length === 0;
    if (!isScalar && (header.dims.length !== dims.length || header.dims.some((name, axis) => name !== dims[axis]))) {
      const axes = header.dims.map(quoted).join(", ");
      throw new InternalError(`the server sent ${header.name} with the axes ${axes}, not ${dims.join(", ")}`);
    }
    requireDtype(header, factor, expectation);
    requireLengths(header, expectation);
  }
}

/** Method and factor of a tensor's name. */
export function splitAtDot(name: string): [string, string] {
  const dot = name.indexOf(".");
  return dot < 0 ? [name, ""] : [name.slice(0, dot), name.slice(dot + 1)];
}

function requireDtype(header: TensorHeader, factor: string, { method, options }: Expectation): void {
  const dtype = dtypeOfWire(header.dtype);
  let wanted = "a floating type";
  if (factor === "spans" || method === READS.tokens) {
    wanted = "I64";
  } else if (factor !== "" && !FIRST_FACTORS.has(header.name)) {
    wanted = "F32";
  } else if (factor === "" && options.dtype !== undefined) {
    wanted = options.dtype;
  } else if (dtype !== undefined && isFloating(dtype)) {
    return;
  }
  if (dtype !== wanted) {
    throw new InternalError(`the server sent ${header.name} as ${dtype ?? header.dtype}, not as ${wanted}`);
  }
}

function requireLengths(header: TensorHeader, { options, run, lengths }: Expectation): void {
  header.dims.forEach((axis, i) => {
    const ofRun = OF_RUN.get(axis);
    const whole = ofRun === undefined ? lengths?.get(axis) : run?.tokens.shape[ofRun];
    const wanted = whole === undefined ? undefined : countOf(options.slices?.[axis] ?? {}, whole);
    if (wanted !== undefined && header.shape[i] !== BigInt(wanted)) {
      throw new InternalError(`the server sent ${header.name} with ${header.shape[i]} along ${axis}, not ${wanted}`);
    }
  });
}
