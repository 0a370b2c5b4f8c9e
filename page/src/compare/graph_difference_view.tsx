/** The difference of two contribution graphs, drawn and as a table. */

import type { JSX } from "preact";
import { useMemo } from "preact/hooks";
import { Layout, RADIUS } from "../graph/layout.js";
import { type GraphNode, nodeName, nodeWords } from "../graph/selection.js";
import { usePage } from "../page_state.js";
import { changeOf, type Difference, differences } from "./graph_difference.js";
import { changeWords, type Pair } from "./pair.js";
import { ScrollFrame } from "./scroll_frame.js";

const MOST_DRAWN = 300;
const MOST_LISTED = 50;
const BOTTOM = 90;
const LEFT = 62;

/** Of the paths to the prediction at a position in each, with the threshold of the graph's controls. */
export function GraphDifference({
  pair,
  at,
}: {
  readonly pair: Pair;
  readonly at: readonly [first: number, second: number];
}): JSX.Element {
  const { threshold, renormalize } = usePage();
  const { first, second, names } = pair;
  const how = { threshold: threshold.value, renormalize: renormalize.value };
  const layers = [first.layers.value.length, second.layers.value.length] as const;
  const isWhole = layers[0] === first.model.nLayers && layers[1] === second.model.nLayers;
  const gaps = new Map([...first.gaps.value, ...second.gaps.value]);
  const found = useMemo(
    () =>
      isWhole ? differences(first.edges(how, at[0], gaps), second.edges(how, at[1], gaps), pair.alignment) : undefined,
    [isWhole, first, second, how.threshold, how.renormalize, ...at, pair.by],
  );
  return (
    <section class="card graph-difference">
      <h3>
        Contribution graphs:{" "}
        {names
          .map((name) => name.toLowerCase())
          .reverse()
          .join(" less ")}
      </h3>
      {found === undefined ? (
        <p class="quiet">
          {layers[0]} and {layers[1]} of {first.model.nLayers} layers have arrived; all are needed.
        </p>
      ) : (
        <>
          <p>
            {found.differences.length} edges are different at the threshold {how.threshold.toFixed(2)}.
            {found.unpaired > 0 && ` ${found.unpaired} more touch tokens without a partner.`}
            {gaps.size > 0 &&
              ` Layers that show no paths in one of the two are left out of both: ${[...gaps.keys()].join(", ")}.`}
          </p>
          {found.differences.length > 0 && (
            <>
              <Drawing
                pair={pair}
                end={at[0] - pair.alignment.offsets[0]}
                found={found.differences.slice(0, MOST_DRAWN)}
              />
              <DifferenceTable pair={pair} found={found.differences.slice(0, MOST_LISTED)} />
            </>
          )}
        </>
      )}
    </section>
  );
}

/** Weaker edges are dashed, stronger ones are not. */
function Drawing({
  pair,
  end,
  found,
}: {
  readonly pair: Pair;
  /** The pair of positions to which the paths lead. */
  readonly end: number;
  readonly found: readonly Difference[];
}): JSX.Element {
  const { labels, first } = pair;
  const layout = new Layout(labels.length, first.model.nLayers);
  const nodes = new Map(
    found.flatMap(({ ends }) => [ends.source, ends.target]).map((node) => [nodeName(node), node] as const),
  );
  const most = Math.abs(changeOf(found[0] as Difference));
  const [width, height] = [layout.width + LEFT, layout.height + BOTTOM];
  return (
    <>
      <p class="legend">
        <span class="stronger">▲ line: stronger in the second</span>{" "}
        <span class="weaker">▼ dashes: weaker in the second</span> (the largest {found.length})
      </p>
      <ScrollFrame name="Drawing of the edges that changed most">
        <svg
          class="difference-drawing"
          role="img"
          aria-label="The edges that changed most; the table below has them in words."
          viewBox={`${-LEFT} 0 ${width} ${height}`}
          width={width}
          height={height}
        >
          {Array.from({ length: layout.nLayers }, (_, layer) => (
            <text key={layer} class="layer-label" x={-6} y={layout.band(layer) + 48} text-anchor="end">
              layer {layer}
            </text>
          ))}
          {[...found].reverse().map((each) => {
            const [[x1, y1], [x2, y2]] = [layout.place(each.ends.source), layout.place(each.ends.target)];
            const share = Math.abs(changeOf(each)) / most;
            return (
              <line
                key={`${nodeName(each.ends.source)}-${nodeName(each.ends.target)}`}
                class={changeOf(each) > 0 ? "stronger" : "weaker"}
                x1={x1}
                y1={y1}
                x2={x2}
                y2={y2}
                stroke-width={1 + 3 * share}
                stroke-opacity={0.3 + 0.7 * share}
              />
            );
          })}
          {[...nodes].map(([name, node]) => {
            const [x, y] = layout.place(node);
            return node.kind === "M" ? (
              <rect key={name} x={x - RADIUS} y={y - RADIUS} width={2 * RADIUS} height={2 * RADIUS} />
            ) : (
              <circle key={name} cx={x} cy={y} r={RADIUS} />
            );
          })}
          {labels.map((label, i) => (
            <text
              key={i}
              class="token-label"
              data-in-sight={i === end ? "" : undefined}
              transform={`translate(${layout.column(i) + 4} ${layout.height + 12}) rotate(-40)`}
              text-anchor="end"
            >
              {label}
            </text>
          ))}
        </svg>
      </ScrollFrame>
    </>
  );
}

function DifferenceTable({ pair, found }: { readonly pair: Pair; readonly found: readonly Difference[] }): JSX.Element {
  const { names } = pair;
  const [ahead] = pair.alignment.offsets;
  const labels = [...Array<string>(ahead).fill(""), ...pair.labels];
  const inFirst = (node: GraphNode): GraphNode => ({ ...node, pos: node.pos + ahead });
  const words = (node: GraphNode): string => nodeWords(node, labels, (label) => label); // they are visible already
  return (
    <ScrollFrame name="The edges that changed most">
      <table class="difference-table">
        <thead>
          <tr>
            <th scope="col">From</th>
            <th scope="col">To</th>
            <th scope="col">{names[0]}</th>
            <th scope="col">{names[1]}</th>
            <th scope="col">Change</th>
          </tr>
        </thead>
        <tbody>
          {found.map((each) => {
            const [source, target] = [inFirst(each.ends.source), inFirst(each.ends.target)];
            return (
              <tr key={`${nodeName(source)}-${nodeName(target)}`} data-edge={`${nodeName(source)}-${nodeName(target)}`}>
                <td>{words(source)}</td>
                <td>{words(target)}</td>
                <td>{each.first === 0 ? "no edge" : each.first.toFixed(4)}</td>
                <td>{each.second === 0 ? "no edge" : each.second.toFixed(4)}</td>
                <td>{changeWords(changeOf(each))}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </ScrollFrame>
  );
}
