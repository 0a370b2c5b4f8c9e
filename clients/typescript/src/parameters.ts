/** Arguments of a method that are no indices: numbers, choices and lists, as the fields of a request say them. */

import { type DescEnum, type DescField, ScalarType } from "@bufbuild/protobuf";
import { InvalidRequestError, TooLargeError } from "./errors.js";
import type { ParameterSpec } from "./gen/transparent_llm/v1/method_pb.js";
import { quoted } from "./legible.js";
import { requireText } from "./run_input.js";

/** Numbers that a list may have. */
export const MOST_NUMBERS = 4096;

/** Of a name, in characters. */
const LONGEST_NAME = 256;

const KINDS: ReadonlyMap<ScalarType, "boolean" | "float" | "name"> = new Map([
  [ScalarType.BOOL, "boolean"],
  [ScalarType.DOUBLE, "float"],
  [ScalarType.STRING, "name"],
]);

/** A field of a request. */
export interface Parameter {
  readonly name: string;
  readonly kind: "choice" | "list" | "boolean" | "float" | "count" | "name";
  /** Of an enum, in the order of their numbers from 1 on. */
  readonly choices: readonly string[];
  /** The axis of the answer that is as long as this says; empty: none is. */
  readonly sizeOf: string;
  /** An empty list stands for the whole axis. */
  readonly isAllIfEmpty: boolean;
}

/** The parameter that a field of a request is. */
export function parameterOf(field: DescField, spec: ParameterSpec): Parameter {
  return {
    name: field.name,
    kind: kindOf(field),
    choices: field.fieldKind === "enum" ? choicesOf(field.enum) : [],
    sizeOf: spec.sizeOf,
    isAllIfEmpty: spec.allIfEmpty,
  };
}

function kindOf(field: DescField): Parameter["kind"] {
  if (field.fieldKind === "list") {
    return "list";
  }
  if (field.fieldKind === "enum") {
    return "choice";
  }
  return KINDS.get(field.scalar as ScalarType) ?? "count";
}

/** Names of an enum's values but that of number 0. */
function choicesOf({ values }: DescEnum): string[] {
  const prefix = (values[0]?.name ?? "").replace(/UNSPECIFIED$/, "");
  return values.slice(1).map(({ name }) => name.slice(prefix.length).toLowerCase());
}

/**
 * What stands in the request for an argument; undefined for one that is left out.
 *
 * @throws InvalidRequestError it is of another type, no such choice, or a number that no field holds.
 * @throws TooLargeError a list that is longer than any request may have.
 */
export function fieldOf(parameter: Parameter, given: unknown): unknown {
  const { name, kind, choices } = parameter;
  if (given === undefined) {
    return undefined;
  }
  switch (kind) {
    case "choice":
      if (typeof given !== "string" || !choices.includes(given)) {
        throw wrong(name, `one of ${choices.map((choice) => `"${choice}"`).join(", ")}`, given);
      }
      return choices.indexOf(given) + 1;
    case "list":
      return listOf(name, given);
    case "boolean":
      if (typeof given !== "boolean") {
        throw wrong(name, "true or false", given);
      }
      return given;
    case "float":
      if (!Number.isFinite(given)) {
        throw wrong(name, "a finite number", given);
      }
      return given;
    case "name":
      return requireName(name, given);
    case "count":
      return requireWithin(name, given, 0, 2 ** 32 - 1);
  }
}

/** The length that an argument gives to its axis; undefined: that of the whole. */
export function sizeOf({ kind, isAllIfEmpty }: Parameter, given: unknown): number | undefined {
  if (kind === "count") {
    return typeof given === "number" ? given : 0;
  }
  const length = Array.isArray(given) ? given.length : 0;
  return length === 0 && isAllIfEmpty ? undefined : length;
}

/** @throws InvalidRequestError no text, or a longer one than any name. */
export function requireName(name: string, given: unknown): string {
  requireText(name, given, { argument: name });
  const text = given as string;
  if (text.length > LONGEST_NAME) {
    throw wrong(name, `a name of at most ${LONGEST_NAME} characters`, `${text.length} characters`);
  }
  return text;
}

function listOf(name: string, given: unknown): number[] {
  if (!Array.isArray(given)) {
    throw wrong(name, "an array of integers", given);
  }
  if (given.length > MOST_NUMBERS) {
    throw new TooLargeError(
      `${name} has ${given.length} numbers, at most ${MOST_NUMBERS} are taken; ask several times`,
      { metadata: { needed: String(given.length), allowed: String(MOST_NUMBERS) } },
    );
  }
  return given.map((number) => requireWithin(name, number, -(2 ** 31), 2 ** 31 - 1));
}

/** @throws InvalidRequestError no integer, or none of these. */
export function requireWithin(name: string, given: unknown, least: number, most: number): number {
  if (typeof given !== "number" || !Number.isInteger(given)) {
    throw wrong(name, "an integer", given);
  }
  if (given < least || given > most) {
    throw new InvalidRequestError(`${name} ${given} is out of range: ${least} to ${most} are numbers that it can be`, {
      metadata: { argument: name, got: String(given) },
    });
  }
  return given;
}

function wrong(name: string, wanted: string, given: unknown): InvalidRequestError {
  return new InvalidRequestError(`${name} must be ${wanted}, got ${quoted(String(given))}`, {
    metadata: { argument: name },
  });
}
