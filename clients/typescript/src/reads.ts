/** Reads: methods with their indices, and what comes for each of them. */

import type { NamedTensor } from "./assembler.js";
import { InternalError, InvalidRequestError } from "./errors.js";
import { splitAtDot } from "./expected.js";
import type { Factors } from "./factors.js";
import { FIRST_FACTORS, type Index, READS, type ReadName } from "./methods.js";
import type { Tensor } from "./tensor.js";

/** A method that reads a run, and its arguments. */
export type Read =
  | readonly ["tokens"]
  | readonly ["logits"]
  | readonly ["residualIn" | "residualAfterAttn" | "residualOut" | "ffnOut", layer: number]
  | readonly ["decomposedFfnOut" | "neuronActivations", batchI: number, layer: number, pos: number]
  | readonly ["attentionMatrix", batchI: number, layer: number, head: number]
  | readonly ["attentionOutput", batchI: number, layer: number, pos: number, head?: number | null]
  | readonly ["decomposedAttn", batchI: number, layer: number];

/** A read, checked. */
export interface CheckedRead {
  readonly name: ReadName;
  readonly indices: readonly Index[];
}

/** What comes for one read: the value, or its factors. */
export type Arrived = { readonly value: Tensor } | { readonly factors: Factors };

/** @throws InvalidRequestError they are no reads. */
export function checkedReads(reads: readonly Read[]): CheckedRead[] {
  if (!Array.isArray(reads)) {
    throw new InvalidRequestError('fetch takes an array of reads, as in [["residualIn", 3], ["logits"]]');
  }
  return reads.map(checkedRead);
}

function checkedRead(read: unknown): CheckedRead {
  const [name, ...indices] = Array.isArray(read) ? read : [];
  if (typeof name !== "string") {
    throw new InvalidRequestError(`a read is an array of a method's name and its arguments, got ${String(read)}`);
  }
  if (!Object.hasOwn(READS, name)) {
    throw new InvalidRequestError(`"${name}" cannot be fetched; these can: ${Object.keys(READS).sort().join(", ")}`);
  }
  if (indices.length > READS[name as ReadName].arguments.length) {
    throw new InvalidRequestError(`there is no ${name}(${indices.join(", ")}) to read`);
  }
  return { name: name as ReadName, indices };
}

/**
 * The tensors of a stream, read by read: each begins with a value or with its first factor.
 *
 * @throws InternalError they are not what was asked for.
 */
export function grouped(reads: readonly CheckedRead[], arrived: readonly NamedTensor[]): Arrived[] {
  const groups: { header: string; value?: Tensor; factors: Map<string, Tensor> }[] = [];
  for (const { name, tensor } of arrived) {
    const [header, factor] = splitAtDot(name);
    const last = groups.at(-1);
    if (factor === "") {
      groups.push({ header, value: tensor, factors: new Map() });
    } else if (FIRST_FACTORS.has(name)) {
      groups.push({ header, factors: new Map([[factor, tensor]]) });
    } else if (last?.header !== header || last.factors.size === 0 || last.factors.has(factor)) {
      throw new InternalError(`the server sent ${name} without the factors before it`);
    } else {
      last.factors.set(factor, tensor);
    }
  }
  const wanted = reads.map(({ name }) => READS[name].header);
  if (groups.length !== wanted.length || groups.some(({ header }, i) => header !== wanted[i])) {
    const sent = groups.map(({ header }) => header).join(", ");
    throw new InternalError(`the server sent ${sent}, not what was asked for: ${wanted.join(", ")}`);
  }
  return groups.map(({ value, factors }) => (value === undefined ? { factors } : { value }));
}
