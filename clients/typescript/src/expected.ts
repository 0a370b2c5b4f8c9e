/** What is known of the tensors of a stream before they come, so that whatever else is sent is refused by its header. */

import { dtypeOfWire, isFloating } from "./dtypes.js";
import { InternalError } from "./errors.js";
import type { TensorHeader } from "./gen/transparent_llm/v1/tensor_pb.js";
import { quoted } from "./legible.js";
import type { Method, Part } from "./methods.js";
import type { ReadOptions } from "./options.js";
import type { Run } from "./run.js";
import { countOf } from "./slices.js";

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
      most += each.isFactored ? each.method.parts.size : 1;
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
    const part = expectation.method.parts.get(factor);
    if (factor !== "" && part === undefined) {
      throw new InternalError(`the server sent ${quoted(header.name)}, which is not a factor of ${method}`);
    }
    const { dims } = part ?? expectation.method;
    const isScalar = part !== undefined && canBeScalar(part) && header.dims.length === 0;
    if (!isScalar && (header.dims.length !== dims.length || header.dims.some((name, axis) => name !== dims[axis]))) {
      const axes = header.dims.map(quoted).join(", ");
      throw new InternalError(`the server sent ${header.name} with the axes ${axes}, not ${dims.join(", ")}`);
    }
    requireDtype(header, part, expectation);
    requireLengths(header, expectation);
  }
}

/** Method and factor of a tensor's name. */
export function splitAtDot(name: string): [string, string] {
  const dot = name.indexOf(".");
  return dot < 0 ? [name, ""] : [name.slice(0, dot), name.slice(dot + 1)];
}

function canBeScalar({ isOptional, dtype }: Part): boolean {
  return isOptional && dtype !== undefined && isFloating(dtype);
}

function requireDtype(header: TensorHeader, part: Part | undefined, { method, options }: Expectation): void {
  const dtype = dtypeOfWire(header.dtype);
  const wanted = part === undefined ? (method.dtype ?? options.dtype) : part.dtype;
  if (wanted === undefined && dtype !== undefined && isFloating(dtype)) {
    return;
  }
  if (wanted === undefined || dtype !== wanted) {
    throw new InternalError(
      `the server sent ${header.name} as ${dtype ?? header.dtype}, not as ${wanted ?? "a floating type"}`,
    );
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
