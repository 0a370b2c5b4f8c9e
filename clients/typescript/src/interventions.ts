/**
 * Changes of a run, as data: where, which elements, and what becomes of them. `transparent-llm/interventions`.
 *
 *     await llm.run([text], { edits: [zero(head(9, 6), EVERYWHERE)] });
 *     await llm.run([corrupt], { edits: [patch(residualOut(5), clean, { positions: [3], rows: "all" })] });
 *     await llm.run([text], { edits: [add(residualOut(6), unembedding(5335), { factor: 4, positions: "last", rows: "all" })] });
 *
 * Edits are made in the order in which the model comes to their sites; at one site in the order of the array, each of
 * what the one before left. Every value that is then read is one of the edited run. They are computed in float32 at
 * least, and rounded once.
 */

export {
  add,
  clamp,
  clampFeature,
  Edit,
  EVERYWHERE,
  mean,
  noise,
  patch,
  project,
  scale,
  setTo,
  swap,
  type Where,
  zero,
} from "./interventions/edit.js";
export type { EditEffect } from "./interventions/effect.js";
export {
  attnOut,
  ffnOut,
  head,
  key,
  neurons,
  pattern,
  query,
  residualAfterAttn,
  residualIn,
  residualOut,
  Site,
  value,
} from "./interventions/site.js";
export {
  type At,
  type Cell,
  entropy,
  kl,
  logit,
  logProbability,
  loss,
  Metric,
  probability,
  projection,
  type SweepOptions,
  type SweepPlan,
  type SweepValues,
  type TokenAtPos,
  type Tokens,
} from "./interventions/sweep.js";
export { literal, neuronOutput, runValue, saeFeature, unembedding, Vector } from "./interventions/vector.js";
