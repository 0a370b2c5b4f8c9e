/** What is known of gradients before they come, so that whatever else is sent is refused by its header. */

import type { NamedTensor } from "./assembler.js";
import { type DtypeName, dtypeOfWire } from "./dtypes.js";
import { InternalError } from "./errors.js";
import type { Expecting } from "./expected.js";
import type { TensorHeader } from "./gen/transparent_llm/v1/tensor_pb.js";
import { quoted } from "./legible.js";
import type { Tensor } from "./tensor.js";

/** One of them. */
export interface ExpectedTensor {
  readonly name: string;
  readonly dims: readonly string[];
  readonly dtype: DtypeName;
  /** Of its axes, as far as they are known. */
  readonly lengths: ReadonlyMap<string, number>;
}

/** The tensors of an answer, in their order; two sites may have one name. */
export class ExpectedGradients implements Expecting {
  readonly #tensors: readonly ExpectedTensor[];

  constructor(tensors: readonly ExpectedTensor[]) {
    this.#tensors = tensors;
  }

  get most(): number {
    return this.#tensors.length;
  }

  /** @throws InternalError none that was asked for is like this. */
  check({ name, dims, shape, dtype }: TensorHeader): void {
    const found = { name, dims, shape: shape.map(Number), dtype: dtypeOfWire(dtype) };
    if (!this.#tensors.some((expected) => isLike(expected, found))) {
      throw new InternalError(
        `the server sent ${quoted(name)} [${shape.join(", ")}] as a gradient, which was not asked for`,
      );
    }
  }

  continues(): boolean {
    return false;
  }

  /** @throws InternalError some are missing, or they come in another order. */
  inOrder(arrived: readonly NamedTensor[]): readonly Tensor[] {
    const wrong = this.#tensors.findIndex((expected, i) => {
      const { name, tensor } = arrived[i] ?? {};
      return name === undefined || tensor === undefined || !isLike(expected, { ...pick(tensor), name });
    });
    if (wrong >= 0 || arrived.length !== this.#tensors.length) {
      throw new InternalError(
        `the server sent ${arrived.length} tensors of gradients, where ${this.#tensors.length} were asked for, or in another order`,
      );
    }
    return arrived.map(({ tensor }) => tensor);
  }
}

interface Like {
  readonly name: string;
  readonly dims: readonly string[];
  readonly shape: readonly number[];
  readonly dtype: DtypeName | undefined;
}

function pick({ dims, shape, dtype }: Tensor): Omit<Like, "name"> {
  return { dims, shape, dtype };
}

function isLike({ name, dims, dtype, lengths }: ExpectedTensor, found: Like): boolean {
  return (
    found.name === name &&
    found.dtype === dtype &&
    found.dims.length === dims.length &&
    dims.every((axis, i) => found.dims[i] === axis && (lengths.get(axis) ?? found.shape[i]) === found.shape[i])
  );
}
