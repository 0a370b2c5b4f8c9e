/** Reads: methods with their indices, and what comes for each of them. */

import type { NamedTensor } from "./assembler.js";
import { InternalError, InvalidRequestError } from "./errors.js";
import { splitAtDot } from "./expected.js";
import { type Index, isParts, type Method, placeOf, READS, type ReadName } from "./methods.js";
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

/** Under which one tensor that is the value stands among what comes for a read. */
export const WHOLE = "";

/** What comes for one read: the value under `WHOLE`, or its factors or parts under their names. */
export type Arrived = ReadonlyMap<string, Tensor>;

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
 * The tensors of a stream, value by value: each begins with the value itself, or with the first of its parts, which
 * come in their order.
 *
 * @throws InternalError they are not what was asked for.
 */
export function grouped(wanted: readonly Method[], arrived: readonly NamedTensor[]): Arrived[] {
  const groups: Map<string, Tensor>[] = [];
  let place = -1; // of the last tensor among the parts of its value
  for (const { name, tensor } of arrived) {
    const [header, part] = splitAtDot(name);
    const underWay = wanted[groups.length - 1];
    if (part !== undefined && place >= 0 && underWay?.header === header && placeOf(underWay, part) > place) {
      place = placeOf(underWay, part);
      groups.at(-1)?.set(part, tensor);
      continue;
    }
    const next = wanted[groups.length];
    if (next?.header !== header || !canBegin(next, part)) {
      throw new InternalError(
        `the server sent ${name} after ${groups.length} of the ${wanted.length} values that were asked for`,
      );
    }
    place = part === undefined ? -1 : 0;
    groups.push(new Map([[part ?? WHOLE, tensor]]));
  }
  if (groups.length !== wanted.length) {
    throw new InternalError(`the server sent ${groups.length} values, not the ${wanted.length} that were asked for`);
  }
  groups.forEach((group, i) => {
    requireWhole(wanted[i] as Method, group);
  });
  return groups;
}

/** @throws InvalidRequestError one of them is of several tensors. */
export function requireOneTensor(reads: readonly CheckedRead[]): void {
  for (const { name } of reads) {
    if (isParts(READS[name])) {
      const parts = [...READS[name].parts.keys()].join(", ");
      throw new InvalidRequestError(
        `fetch takes reads of one tensor, and ${name} is several: ${parts}; fetchParts reads them`,
      );
    }
  }
}

function canBegin(method: Method, part: string | undefined): boolean {
  return part === undefined ? !isParts(method) : placeOf(method, part) === 0;
}

function requireWhole({ header, parts }: Method, arrived: Arrived): void {
  const missing = [...parts].find(([name, { isOptional }]) => isOptional !== true && !arrived.has(name));
  if (!arrived.has(WHOLE) && missing !== undefined) {
    throw new InternalError(`the server sent ${header} without its part ${missing[0]}`);
  }
}
