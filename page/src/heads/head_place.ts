/** A head of the model. */
export interface HeadPlace {
  readonly layer: number;
  readonly head: number;
}
