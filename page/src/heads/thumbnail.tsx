/** A head's pattern in small: a pixel for each pair of positions. */

import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { sequential } from "../shown/scale.js";
import type { LayerPatterns } from "./layer_patterns.js";

const SHADES = 256;

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
        width={nTokens}
        height={nTokens}
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
  const image = new ImageData(nTokens, nTokens);
  for (let query = 0; query < nTokens; query++) {
    for (let key = 0; key <= query; key++) {
      const share = patterns.most > 0 ? patterns.at(head, query, key) / patterns.most : 0;
      const [red, green, blue] = PALETTE[Math.round(Math.min(1, share) * (SHADES - 1)) || 0] as [
        number,
        number,
        number,
      ];
      image.data.set([red, green, blue, 255], 4 * (query * nTokens + key));
    }
  }
  return image;
}

function placeOf(offset: number, size: number, count: number): number {
  return Math.min(count - 1, Math.max(0, Math.floor((offset / size) * count)));
}
