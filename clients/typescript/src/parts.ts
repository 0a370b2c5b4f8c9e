/** Options of a call taken apart, and what comes for it put together. */

import { InternalError } from "./errors.js";
import type { Arrived } from "./reads.js";
import type { Tensor } from "./tensor.js";

/** What of the options is of these names, and the rest. */
export function parted<T extends object, Name extends keyof T>(
  options: T,
  ...names: Name[]
): [Pick<T, Name>, Omit<T, Name>] {
  const parts: [Partial<T>, Partial<T>] = [{}, {}];
  for (const name of Object.keys(options) as (keyof T)[]) {
    parts[names.includes(name as Name) ? 0 : 1][name] = options[name];
  }
  return parts as unknown as [Pick<T, Name>, Omit<T, Name>];
}

/**
 * Parts of these names, which are those of the wire in camel case.
 *
 * @throws InternalError one of them did not come.
 */
export function named<Name extends string>(came: Arrived, ...names: Name[]): Readonly<Record<Name, Tensor>> {
  return Object.fromEntries(names.map((name) => [name, required(came, snakeCase(name))])) as Record<Name, Tensor>;
}

/**
 * The value that is one tensor.
 *
 * @throws InternalError it did not come.
 */
export function whole(came: Arrived): Tensor {
  return required(came, "");
}

function required(came: Arrived, name: string): Tensor {
  const tensor = came.get(name);
  if (tensor === undefined) {
    throw new InternalError(`the server sent no ${name === "" ? "value" : name}`);
  }
  return tensor;
}

function snakeCase(camelCase: string): string {
  return camelCase.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
