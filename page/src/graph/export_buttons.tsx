/** The graph as a file: a picture, or its numbers. */

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { usePage } from "../page_state.js";
import type { RunView } from "../run/run_view.js";
import { fileName, save } from "../shown/save.js";
import { DrawnGraph } from "./drawn_graph.js";
import { graphSvg } from "./graph_svg.js";

const MOST_PIXELS = 8192;

export function ExportButtons({ run }: { readonly run: RunView }): JSX.Element {
  const page = usePage();
  const [said, setSaid] = useState("");
  const copy = async (): Promise<void> => {
    try {
      await navigator.clipboard.writeText(location.href);
      setSaid("Copied.");
    } catch {
      setSaid("This browser does not let the page copy. The address bar has the link.");
    }
  };
  const drawn = (): DrawnGraph => new DrawnGraph(page.graph.value, run.nTokens, run.model.nLayers, run.gaps.value);
  const svg = (): string => graphSvg(drawn(), run.tokens, `${run.model.name}: contribution graph`);
  const name = (ending: string): string => fileName(run.model.name, "graph", ending);
  return (
    <div class="toolbar" role="group" aria-label="Save the graph">
      <button type="button" onClick={() => save(name("svg"), svg(), "image/svg+xml")}>
        SVG
      </button>
      <button type="button" onClick={async () => save(name("png"), await png(svg()))}>
        PNG
      </button>
      <button type="button" onClick={() => save(name("json"), JSON.stringify(numbers(), undefined, 1))}>
        JSON
      </button>
      <button type="button" onClick={() => void copy()}>
        Copy the link
      </button>
      <span role="status">{said}</span>
    </div>
  );

  function numbers(): object {
    const { model, tokenIds, tokens } = run;
    return {
      model: model.name,
      token_ids: tokenIds,
      tokens,
      threshold: page.threshold.value,
      renormalize: page.renormalize.value,
      start: page.start.value,
      edges: drawn().edges.map(({ edge }) => edge),
      layers_without_edges: [...run.gaps.value.keys()],
    };
  }
}

/** As the browser draws an SVG document, made smaller where it would be too large for it. */
async function png(svg: string): Promise<Blob> {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  await image.decode();
  const factor = Math.min(2, MOST_PIXELS / image.width, MOST_PIXELS / image.height);
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [Math.round(image.width * factor), Math.round(image.height * factor)];
  canvas.getContext("2d")?.drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob === null ? reject(new Error("the browser made no PNG")) : resolve(blob)));
  });
}
