// Gradients of tests/conformance/README.md, by the client.

import { editOf, metricOf, siteOf } from "./edits.js";

/** @typedef {import("../dist/index.js").RemoteTransparentLlm} Client */
/** @typedef {import("../dist/index.js").Tensor} Tensor */

/**
 * What comes, by the names on the wire.
 *
 * @param {Client} client
 * @param {any} request
 * @param {(name: string) => Client} clientOf
 * @param {AbortSignal} signal
 * @returns {Promise<Record<string, Tensor>>}
 */
export async function differentiated(
  client,
  { metric, sites = [], path, edits = [], edges, ...rest },
  clientOf,
  signal,
) {
  const wanted = sites.map((/** @type {any} */ each) => ({
    ...{ site: siteOf(each.site), form: each.form, sourceRows: each.source_rows },
    source: each.run === undefined ? undefined : clientOf(each.run),
  }));
  const plan = {
    metric: metricOf(metric, clientOf),
    sites: wanted,
    rows: rest.rows,
    frozen: rest.frozen,
    path: path && pathOf(path, clientOf),
    edits: edits.map((/** @type {any} */ edit) => editOf(edit, clientOf)),
    edges: edges && { source: clientOf(edges.run), steps: edges.steps, sourceRows: edges.source_rows },
  };
  const found = await client.gradients(plan, { signal });
  const named = found.sites.map((tensor, i) => [String(wanted[i].site).slice(0, 128), tensor]);
  const { baselineMetric, delta, values } = found.integrated ?? {};
  const integrated = values && { baseline_metric: baselineMetric, delta, integrated_gradients: values };
  return { metric: found.metric, ...Object.fromEntries(named), ...integrated, ...found.edges };
}

/**
 * @param {any} path
 * @param {(name: string) => Client} clientOf
 */
function pathOf({ zero, token_id: tokenId, run, steps, site }, clientOf) {
  const baseline = zero ? "zero" : run === undefined ? tokenId : clientOf(run);
  return { baseline, steps, site: site && siteOf(site) };
}
