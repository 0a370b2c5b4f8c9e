/** The whole graph as a picture for papers, whatever part of it is on the screen. */

import { visible } from "../shown/token_text.js";
import type { DrawnGraph } from "./drawn_graph.js";
import { BAND, RADIUS } from "./layout.js";
import { nodeName } from "./selection.js";

const LEFT = 70;
const BOTTOM = 90;
const ATTENTION = "#0072b2";
const FFN = "#b35806";

/** An SVG document. */
export function graphSvg(drawn: DrawnGraph, tokens: readonly string[], title: string): string {
  const { layout } = drawn;
  const [width, height] = [layout.width + LEFT + 10, layout.height + BOTTOM];
  const stripes = Array.from({ length: layout.nLayers }, (_, layer) => stripe(layer, layout.band(layer), layout.width));
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="${-LEFT} 0 ${width} ${height}" width="${width}" height="${height}" font-family="sans-serif" font-size="12">`,
    `<title>${escaped(title)}</title>`,
    `<rect x="${-LEFT}" width="${width}" height="${height}" fill="#fff"/>`,
    ...stripes,
    ...drawn.passages.map(passageLine),
    ...drawn.edges.map(edgeLine),
    ...nodes(drawn),
    ...tokens.map((token, pos) => tokenLabel(token, layout.column(pos), layout.height)),
    "</svg>",
  ];
  return parts.join("\n");
}

function stripe(layer: number, y: number, width: number): string {
  const fill = layer % 2 === 0 ? "#f2f4f7" : "#fff";
  return `<rect y="${y}" width="${width}" height="${BAND}" fill="${fill}"/><text x="-8" y="${y + BAND / 2}" text-anchor="end">layer ${layer}</text>`;
}

function edgeLine({ edge, x1, y1, x2, y2 }: DrawnGraph["edges"][number]): string {
  const colour = edge.kind.startsWith("ffn") ? FFN : ATTENTION;
  const share = Math.sqrt(edge.weight);
  const words = `<title>${edge.source} to ${edge.target}: ${edge.weight.toFixed(4)}</title>`;
  return `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" stroke="${colour}" stroke-opacity="${(0.25 + 0.75 * share).toFixed(2)}" stroke-width="${(1 + 3 * share).toFixed(2)}">${words}</line>`;
}

function passageLine({ x1, y1, x2, y2 }: DrawnGraph["passages"][number]): string {
  const words = "<title>past a layer that shows no paths</title>";
  return `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" stroke="#5a6470" stroke-dasharray="2 4">${words}</line>`;
}

function nodes({ layout, active }: DrawnGraph): string[] {
  const all = Array.from({ length: layout.nTokens }, (_, pos) => layout.nodesOf(pos)).flat();
  return all
    .filter((node) => active.has(nodeName(node)))
    .map((node) => {
      const [x, y] = layout.place(node);
      return node.kind === "M"
        ? `<rect x="${x - RADIUS}" y="${y - RADIUS}" width="${2 * RADIUS}" height="${2 * RADIUS}" fill="${FFN}"/>`
        : `<circle cx="${x}" cy="${y}" r="${RADIUS}" fill="#fff" stroke="${ATTENTION}" stroke-width="1.5"/>`;
    });
}

function tokenLabel(token: string, x: number, y: number): string {
  return `<text transform="translate(${x + 4} ${y + 12}) rotate(-40)" text-anchor="end" font-family="monospace">${escaped(visible(token))}</text>`;
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}
