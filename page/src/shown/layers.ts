/** Values of a model's layers, read one after the other. */

/** What is asked for at once: the model thread computes one, the other is on its way. */
const AHEAD = 2;

/** What `read` gives for each layer from one on, the lowest first. */
export async function* upwards<T>(
  nLayers: number,
  read: (layer: number) => Promise<T>,
  first = 0,
): AsyncGenerator<T, void> {
  const coming: Promise<T>[] = [];
  for (let layer = first; layer < nLayers; layer++) {
    for (let next = layer + coming.length; next < nLayers && coming.length < AHEAD; next++) {
      const asked = read(next);
      asked.catch(() => {}); // it is awaited in its turn
      coming.push(asked);
    }
    yield await (coming.shift() as Promise<T>);
  }
}
