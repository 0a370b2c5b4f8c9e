/** What reads would bring, known before anything is computed or sent. */

import { type Described, describedBy, StreamError } from "./assembler.js";
import type { DtypeName } from "./dtypes.js";
import { InternalError } from "./errors.js";
import { type Expectation, Expected, requireOwnSizes } from "./expected.js";
import type { PlanResponse } from "./gen/transparent_llm/v1/service_pb.js";
import type { TensorHeader } from "./gen/transparent_llm/v1/tensor_pb.js";
import { isParts, READS, type ReadName } from "./methods.js";
import { type CheckedRead, grouped, WHOLE } from "./reads.js";

/** One tensor: its shape, and what it takes. */
export interface PlannedTensor {
  /** Of a value that is one tensor the method's, of a part its own, as in `fetchParts`. */
  readonly name: string;
  readonly shape: readonly number[];
  /** The names of its axes. */
  readonly dims: readonly string[];
  readonly dtype: DtypeName;
  /** In memory. */
  readonly bytes: number;
}

/** One value. Where it is several tensors, shape, axes and type are those of the first, bytes those of all. */
export interface PlannedRead extends PlannedTensor {
  readonly name: ReadName;
  /**
   * What is sent for it: less than `bytes` where the value is a product and its factors travel. Weights that the client
   * fetches once and keeps, for `decomposedFfnOut`, are not in it.
   */
  readonly transferBytes: number;
  /** The tensors that the value consists of, if those are several. */
  readonly parts: readonly PlannedTensor[];
}

/**
 * What was answered: first what the values are, then as many times what would be sent.
 *
 * @param expectations of the values, and then of what is sent.
 * @throws InternalError it is not what was asked for.
 */
export function plannedReads(
  { tensors }: PlanResponse,
  reads: readonly CheckedRead[],
  expectations: readonly Expectation[],
): PlannedRead[] {
  const expected = new Expected(expectations);
  if (tensors.length > expected.most) {
    throw new InternalError(`the server planned ${tensors.length} tensors, at most ${expected.most} can be`);
  }
  const described = tensors.map((header) => {
    const tensor = describedHeader(header);
    expected.check(header);
    return { name: header.name, tensor };
  });
  const found = grouped(
    expectations.map(({ method }) => method),
    described,
  );
  found.forEach((each, i) => {
    requireOwnSizes(expectations[i] as Expectation, each);
  });
  return reads.map(({ name }, i) => {
    const [value, sent] = [found[i], found[reads.length + i]] as [DescribedParts, DescribedParts];
    if (!value.has(WHOLE) && !isParts(READS[name])) {
      throw new InternalError(`the server planned ${name} as its factors`);
    }
    return plannedRead(name, value, sent);
  });
}

type DescribedParts = ReadonlyMap<string, Described>;

function describedHeader(header: TensorHeader): Described {
  try {
    return describedBy(header);
  } catch (error) {
    throw error instanceof StreamError
      ? new InternalError(`the server planned what cannot be: ${error.message}`)
      : error;
  }
}

/** Of a value that is these tensors, and would be sent as those. */
function plannedRead(name: ReadName, value: DescribedParts, sent: DescribedParts): PlannedRead {
  const tensors = [...value].map(([part, { shape, dims, dtype, totalBytes }]) => ({
    ...{ shape, dims, dtype, bytes: totalBytes },
    name: part === WHOLE ? name : part,
  }));
  const [first] = tensors as [PlannedTensor];
  const parts = value.has(WHOLE) ? [] : tensors;
  return { ...first, name, bytes: bytesOf(value), transferBytes: bytesOf(sent), parts };
}

function bytesOf(tensors: DescribedParts): number {
  return [...tensors.values()].reduce((sum, { totalBytes }) => sum + totalBytes, 0);
}
