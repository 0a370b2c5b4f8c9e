/** A value of each layer of the model, as the layers arrive. */

import { useEffect, useRef, useState } from "preact/hooks";
import { usePage } from "../page_state.js";
import { isStopped } from "./advice.js";
import { upwards } from "./layers.js";

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
    const readAll = async (): Promise<void> => {
      let layers: readonly T[] = [];
      for await (const layer of upwards(nLayers, (index) => wanted(index, stop.signal))) {
        layers = [...layers, layer];
        if (!stop.signal.aborted) {
          setState({ layers, isComing: layers.length < nLayers, inputs });
        }
      }
    };
    connection.watched(readAll()).catch((error: unknown) => {
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
