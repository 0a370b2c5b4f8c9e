/** A head's pattern in small: a pixel for each pair of positions, or for the strongest of some pairs of a long row. */

import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { sequential } from "../shown/scale.js";
import type { LayerPatterns } from "./layer_patterns.js";

const SHADES = 256;
/** As many pixels as the picture has on a screen: what a browser drops of more would be missing at random. */
const MOST_PIXELS = 96;

/** Red, green and blue of each shade. */
const PALETTE: readonly (readonly [number, number, number])[] = Array.from({ length: SHADES }, (_, shade) => {
  const colour = Number.parseInt(sequential(shade / (SHADES - 1)).slice(1), 16);
  return [colour >> 16, (colour >> 8) & 255, colour & 255];
});

/** A pair of positions of a head. */
export interface Pair {
  readonly head: number;
  readonly query: number;
  readonly key: number;
}

export function Thumbnail({
  patterns,
  head,
  nTokens,
  isChosen,
  onChoose,
  onPoint,
}: {
  readonly patterns: LayerPatterns;
  readonly head: number;
  readonly nTokens: number;
  readonly isChosen: boolean;
  readonly onChoose: () => void;
  readonly onPoint: (pair: Pair) => void;
}): JSX.Element {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    canvas.current?.getContext("2d")?.putImageData(imageOf(patterns, head, nTokens), 0, 0);
  }, [patterns, head, nTokens]);
  return (
    <button type="button" class="thumbnail" aria-pressed={isChosen} data-head={head} onClick={onChoose}>
      <canvas
        ref={canvas}
        width={sizeOf(nTokens)}
        height={sizeOf(nTokens)}
        onPointerMove={({ offsetX, offsetY, currentTarget: { clientWidth, clientHeight } }) =>
          onPoint({
            head,
            query: placeOf(offsetY, clientHeight, nTokens),
            key: placeOf(offsetX, clientWidth, nTokens),
          })
        }
      />
      <span>Head {head}</span>
    </button>
  );
}

/** What cannot be, since the key comes later, is left transparent. */
function imageOf(patterns: LayerPatterns, head: number, nTokens: number): ImageData {
  const size = sizeOf(nTokens);
  const shades = new Int16Array(size * size).fill(-1);
  const pixelOf = (position: number): number => Math.floor((position * size) / nTokens);
  for (let query = 0; query < nTokens; query++) {
    for (let key = 0; key <= query; key++) {
      const share = patterns.most > 0 ? patterns.at(head, query, key) / patterns.most : 0;
      const at = pixelOf(query) * size + pixelOf(key);
      shades[at] = Math.max(shades[at] as number, Math.round(Math.min(1, share) * (SHADES - 1)) || 0);
    }
  }
  const image = new ImageData(size, size);
  shades.forEach((shade, at) => {
    const colour = PALETTE[shade];
    if (colour !== undefined) {
      image.data.set([...colour, 255], 4 * at);
    }
  });
  return image;
}

function sizeOf(nTokens: number): number {
  return Math.min(nTokens, MOST_PIXELS);
}

function placeOf(offset: number, size: number, count: number): number {
  return Math.min(count - 1, Math.max(0, Math.floor((offset / size) * count)));
}
