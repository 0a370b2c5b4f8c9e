// Edits of tests/conformance/README.md, as edits of the client.

import { Tensor } from "../dist/index.js";
import * as interventions from "../dist/interventions.js";
import { decodeBase64 } from "./base64.js";

/** @typedef {import("../dist/index.js").RemoteTransparentLlm} Client */
/** @typedef {(name: string) => Client} ClientOf */

/**
 * @param {any} edit
 * @param {ClientOf} clientOf
 */
export function editOf({ op, ...edit }, clientOf) {
  const site = siteOf(edit.site);
  const where = {
    ...edit,
    ...(edit.source_positions && { sourcePositions: edit.source_positions }),
    ...(edit.source_rows && { sourceRows: edit.source_rows }),
  };
  switch (op) {
    case "zero":
      return interventions.zero(site, where);
    case "scale":
      return interventions.scale(site, edit.factor, where);
    case "add":
      return interventions.add(site, vectorOf(edit.vector, clientOf), where);
    case "set":
      return interventions.setTo(site, vectorOf(edit.vector, clientOf), where);
    case "mean":
      return interventions.mean(site, clientOf(edit.source), where);
    case "patch":
      return interventions.patch(site, clientOf(edit.source), where);
    case "project":
      return interventions.project(site, vectorOf(edit.vector, clientOf), where);
    case "clamp":
      return interventions.clamp(site, vectorOf(edit.vector, clientOf), { ...where, ...boundsOf(edit) });
    case "clamp_feature":
      return interventions.clampFeature(site, edit.sae, edit.feature, { ...where, ...boundsOf(edit) });
    case "swap":
      return interventions.swap(site, vectorOf(edit.origin, clientOf), vectorOf(edit.target, clientOf), where);
    case "noise":
      return interventions.noise(site, where);
    default:
      throw new Error(`there is no edit ${op}`);
  }
}

/** @param {{ least?: number | null, most?: number | null }} edit */
function boundsOf({ least, most }) {
  return { least: least ?? Number.NEGATIVE_INFINITY, most: most ?? Number.POSITIVE_INFINITY };
}

/**
 * @param {any} metric
 * @param {ClientOf} clientOf
 */
export function metricOf({ measure, token, site, direction, run, ...at }, clientOf) {
  switch (measure) {
    case "logit":
      return interventions.logit(token, at);
    case "logprob":
      return interventions.logProbability(token, at);
    case "prob":
      return interventions.probability(token, at);
    case "loss":
      return interventions.loss();
    case "kl":
      return interventions.kl(at, run === undefined ? undefined : clientOf(run));
    case "entropy":
      return interventions.entropy(at);
    case "projection":
      return interventions.projection(siteOf(site), vectorOf(direction, clientOf), at);
    default:
      throw new Error(`there is no measure ${measure}`);
  }
}

/**
 * @param {Client} client
 * @param {any} request
 * @param {ClientOf} clientOf
 * @param {AbortSignal} signal
 */
export function swept(client, { templates, cells, metrics, rows, before = [] }, clientOf, signal) {
  const edits = (/** @type {any[]} */ given) => given.map((edit) => editOf(edit, clientOf));
  const plan = {
    templates: edits(templates),
    cells: cells.map((/** @type {any} */ { source_row: sourceRow, ...cell }) => ({
      ...cell,
      ...(sourceRow !== undefined && { sourceRow }),
    })),
    metrics: metrics.map((/** @type {any} */ metric) => metricOf(metric, clientOf)),
    edits: edits(before),
    ...(rows !== undefined && { rows }),
  };
  return client.sweep(plan, { signal });
}

/** @param {[string, ...any[]]} given */
export function siteOf([name, ...args]) {
  const camel = name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());
  const isOfAll = ["neurons", "head", "pattern", "query", "key", "value"].includes(name) && args.length === 1;
  const given = isOfAll ? [...args, "all"] : args;
  return /** @type {any} */ (interventions)[camel](...given);
}

/**
 * @param {any} given
 * @param {ClientOf} clientOf
 * @returns {import("../dist/interventions.js").Vector}
 */
function vectorOf(given, clientOf) {
  if ("literal" in given) {
    const { literal } = given;
    return interventions.literal(new Tensor({ ...literal, bytes: decodeBase64(literal.data) }));
  }
  if ("value_of" in given) {
    const { site, source, row, pos } = given.value_of;
    return interventions.runValue(siteOf(site), clientOf(source), { row, pos });
  }
  if ("difference" in given) {
    const [minuend, subtrahend] = given.difference;
    return vectorOf(minuend, clientOf).minus(vectorOf(subtrahend, clientOf));
  }
  if ("unembedding" in given) {
    return interventions.unembedding(given.unembedding);
  }
  if ("sae_feature" in given) {
    const [sae, feature] = given.sae_feature;
    return interventions.saeFeature(sae, feature);
  }
  const [layer, neuron] = given.neuron_output;
  return interventions.neuronOutput(layer, neuron);
}
