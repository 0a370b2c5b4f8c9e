/** A value of each layer of the model, as the layers arrive. */

import { useEffect, useRef, useState } from "preact/hooks";
import { usePage } from "../page_state.js";
import { isStopped } from "./advice.js";

/** What is asked for at once: the model thread computes one, the other is on its way. */
const AHEAD = 2;

/** What has arrived, from the lowest layer up. */
export interface LayersState<T> {
  readonly layers: readonly T[];
  readonly error?: unknown;
  readonly isComing: boolean;
}

interface Arrived<T> extends LayersState<T> {
  /** What they were read for. */
  readonly inputs: readonly unknown[];
}

/**
 * Read a value of each layer, the lowest first, when the component appears and whenever one of `inputs` changes. Values
 * that were read for other inputs are not shown; what is not wanted any more is cancelled.
 */
export function useLayers<T>(
  nLayers: number,
  read: (layer: number, signal: AbortSignal) => Promise<T>,
  inputs: readonly unknown[],
): LayersState<T> {
  const { connection } = usePage();
  const [state, setState] = useState<Arrived<T>>({ layers: [], isComing: true, inputs });
  const latest = useRef(read);
  latest.current = read;
  const returns = connection.returns.value;
  useEffect(() => {
    const stop = new AbortController();
    const wanted = latest.current;
    setState({ layers: [], isComing: true, inputs });
    const onLayers = (layers: readonly T[]): void => {
      if (!stop.signal.aborted) {
        setState({ layers, isComing: layers.length < nLayers, inputs });
      }
    };
    connection.watched(upwards(nLayers, (layer) => wanted(layer, stop.signal), onLayers)).catch((error: unknown) => {
      if (!stop.signal.aborted && !isStopped(error)) {
        connection.failed(error);
        setState(({ layers }) => ({ layers, error, isComing: false, inputs }));
      }
      stop.abort();
    });
    return () => stop.abort();
  }, [nLayers, ...inputs, returns]);
  return inputs.every((input, i) => input === state.inputs[i]) ? state : { layers: [], isComing: true };
}

/** Read layer after layer, some ahead; `onLayers` gets all that have arrived. */
async function upwards<T>(
  nLayers: number,
  read: (layer: number) => Promise<T>,
  onLayers: (layers: readonly T[]) => void,
): Promise<void> {
  const coming: Promise<T>[] = [];
  let layers: readonly T[] = [];
  let asked = 0;
  while (layers.length < nLayers) {
    while (coming.length < AHEAD && asked < nLayers) {
      const next = read(asked++);
      next.catch(() => {}); // it is awaited in its turn
      coming.push(next);
    }
    layers = [...layers, await (coming.shift() as Promise<T>)];
    onLayers(layers);
  }
}
