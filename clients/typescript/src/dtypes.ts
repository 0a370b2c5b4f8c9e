/** Element types: wire enum, the name that safetensors gives it, and bytes of an element, in one table. */

import { InvalidRequestError } from "./errors.js";
import { Dtype } from "./gen/transparent_llm/v1/tensor_pb.js";

/** Name of an element type, as in safetensors. */
export type DtypeName = "BOOL" | "U8" | "I8" | "I16" | "I32" | "I64" | "F16" | "BF16" | "F32" | "F64";

interface Row {
  readonly wire: Dtype;
  readonly size: number;
  readonly isFloating: boolean;
}

function row(wire: Dtype, size: number, isFloating = false): Row {
  return { wire, size, isFloating };
}

const TABLE: Readonly<Record<DtypeName, Row>> = {
  BOOL: row(Dtype.BOOL, 1),
  U8: row(Dtype.U8, 1),
  I8: row(Dtype.I8, 1),
  I16: row(Dtype.I16, 2),
  I32: row(Dtype.I32, 4),
  I64: row(Dtype.I64, 8),
  F16: row(Dtype.F16, 2, true),
  BF16: row(Dtype.BF16, 2, true),
  F32: row(Dtype.F32, 4, true),
  F64: row(Dtype.F64, 8, true),
};

const NAMES = Object.keys(TABLE) as DtypeName[];
const BY_WIRE = new Map<Dtype, DtypeName>(NAMES.map((name) => [TABLE[name].wire, name]));

/** Bytes of an element. */
export function sizeOf(dtype: DtypeName): number {
  return TABLE[dtype].size;
}

/** Whether it is one of F16, BF16, F32 and F64. */
export function isFloating(dtype: DtypeName): boolean {
  return TABLE[dtype].isFloating;
}

/** The name of a wire enum; undefined for a number that is none. */
export function dtypeOfWire(wire: Dtype): DtypeName | undefined {
  return BY_WIRE.get(wire);
}

/**
 * The wire enum of a name.
 *
 * @throws InvalidRequestError INVALID_DTYPE: there is no such type.
 */
export function wireOfDtype(dtype: DtypeName): Dtype {
  if (!Object.hasOwn(TABLE, dtype)) {
    throw invalidDtype(String(dtype), NAMES);
  }
  return TABLE[dtype].wire;
}

/**
 * The wire enum of a floating type that a caller asks for.
 *
 * @throws InvalidRequestError INVALID_DTYPE: it is none of F16, BF16, F32 and F64.
 */
export function wireOfFloating(dtype: DtypeName): Dtype {
  if (!Object.hasOwn(TABLE, dtype) || !TABLE[dtype].isFloating) {
    throw invalidDtype(
      String(dtype),
      NAMES.filter((name) => TABLE[name].isFloating),
    );
  }
  return TABLE[dtype].wire;
}

function invalidDtype(got: string, allowed: readonly DtypeName[]): InvalidRequestError {
  const names = allowed.join(", ");
  return new InvalidRequestError(`${got} is not a dtype that can be requested here; allowed are ${names}`, {
    reason: "INVALID_DTYPE",
    metadata: { got, allowed: names },
  });
}
