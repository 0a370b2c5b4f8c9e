/** The recipe of what is shown: model, tokens, edits. It is all that a link to share has. */

/** Where a run is changed. */
export interface SiteSpec {
  readonly kind: SiteKind;
  readonly layer: number;
  /** Of kinds "head" and "pattern". */
  readonly head?: number | undefined;
  /** Of the kind "neurons". */
  readonly neurons?: readonly number[] | undefined;
}

export const SITE_KINDS = [
  "residual_in",
  "residual_after_attn",
  "residual_out",
  "attn_out",
  "ffn_out",
  "head",
  "pattern",
  "neurons",
] as const;
export type SiteKind = (typeof SITE_KINDS)[number];

/** One change of a run. */
export type EditSpec = {
  readonly site: SiteSpec;
  readonly positions: "all" | "last" | readonly number[];
} & (
  | { readonly op: "scale"; readonly factor: number }
  /** What the recipe's source has at the same site. */
  | { readonly op: "patch"; readonly sourcePositions?: readonly number[] | undefined }
  /** Adds the unembedding of a token times a factor of the norm of what is there. */
  | { readonly op: "steer"; readonly token: number; readonly factor: number }
);

/** One run: a row of token ids, and what is changed on the way. */
export interface RunRecipe {
  readonly tokens: readonly number[];
  readonly edits: readonly EditSpec[];
}

/** What is shown. */
export interface Recipe {
  /** Its name on the server; empty: the only one. */
  readonly model: string;
  readonly run: RunRecipe;
  /** What it is compared with. */
  readonly other?: RunRecipe | undefined;
  /** What edits that patch take from. It has no such edits itself. */
  readonly source?: RunRecipe | undefined;
}

/** What a link may have, whoever made it. */
const MOST_TOKENS = 4096;
export const MOST_EDITS = 64;
const MOST_NAME = 200;
const MOST_CHARACTERS = 2 ** 17;
const MOST_INDEX = 2 ** 31 - 1;

/** A link has something else than a recipe. */
export class RecipeError extends Error {
  override readonly name = "RecipeError";
}

/** The part of an address behind `#`, which browsers send nowhere. */
export function fragmentOf(recipe: Recipe): string {
  const bytes = new TextEncoder().encode(JSON.stringify(recipe));
  const text = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  return `#recipe=${text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`;
}

/**
 * The recipe in the part of an address behind `#`; undefined if there is none.
 *
 * @throws RecipeError there is something else, or more than a page can show.
 */
export function recipeOf(fragment: string): Recipe | undefined {
  const [, text] = /^#recipe=(.*)$/.exec(fragment) ?? [];
  if (text === undefined) {
    return undefined;
  }
  if (text.length > MOST_CHARACTERS) {
    throw new RecipeError(`the link has ${text.length} characters, at most ${MOST_CHARACTERS} can be read`);
  }
  return checked(parsed(text));
}

function parsed(text: string): unknown {
  try {
    const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw new RecipeError("the link is damaged: what stands behind #recipe= cannot be read");
  }
}

function checked(value: unknown): Recipe {
  const { model, run, other, source } = objectOf("recipe", value);
  if (typeof model !== "string" || model.length > MOST_NAME) {
    throw new RecipeError("the link names no model");
  }
  const recipe: Recipe = {
    model,
    run: runOf("run", run),
    ...(other === undefined ? {} : { other: runOf("other", other) }),
    ...(source === undefined ? {} : { source: runOf("source", source) }),
  };
  requireSource(recipe);
  return recipe;
}

/** Whether something of an edit comes from another run. */
export function isPatch({ op }: EditSpec): boolean {
  return op === "patch";
}

function requireSource({ run, other, source }: Recipe): void {
  if (source === undefined && [...run.edits, ...(other?.edits ?? [])].some(isPatch)) {
    throw new RecipeError("the link patches from a run that it does not have");
  }
  if (source?.edits.some(isPatch)) {
    throw new RecipeError("source of the link has edits that patch, and there is nothing that they could take from");
  }
}

function runOf(name: string, value: unknown): RunRecipe {
  const { tokens, edits } = objectOf(name, value);
  return {
    tokens: indices(`${name}.tokens`, tokens, MOST_TOKENS),
    edits: arrayOf(`${name}.edits`, edits, MOST_EDITS).map((edit, i) => editOf(`${name}.edits[${i}]`, edit)),
  };
}

function editOf(name: string, value: unknown): EditSpec {
  const { site, positions, op, factor, token, sourcePositions } = objectOf(name, value);
  const chosen =
    positions === "all" || positions === "last" ? positions : indices(`${name}.positions`, positions, MOST_TOKENS);
  const where = { site: siteOf(`${name}.site`, site), positions: chosen } as const;
  switch (op) {
    case "scale":
      return { ...where, op, factor: numberOf(`${name}.factor`, factor) };
    case "patch":
      return sourcePositions === undefined
        ? { ...where, op }
        : { ...where, op, sourcePositions: indices(`${name}.sourcePositions`, sourcePositions, MOST_TOKENS) };
    case "steer":
      return { ...where, op, token: index(`${name}.token`, token), factor: numberOf(`${name}.factor`, factor) };
    default:
      throw new RecipeError(`${name}.op of the link is none that this page knows`);
  }
}

function siteOf(name: string, value: unknown): SiteSpec {
  const { kind, layer, head, neurons } = objectOf(name, value);
  const known = SITE_KINDS.find((each) => each === kind);
  if (known === undefined) {
    throw new RecipeError(`${name}.kind of the link is none that this page knows`);
  }
  return {
    kind: known,
    layer: index(`${name}.layer`, layer),
    ...(head === undefined ? {} : { head: index(`${name}.head`, head) }),
    ...(neurons === undefined ? {} : { neurons: indices(`${name}.neurons`, neurons, MOST_TOKENS) }),
  };
}

function objectOf(name: string, value: unknown): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new RecipeError(`${name} of the link is no object`);
  }
  return value as Record<string, unknown>;
}

function arrayOf(name: string, value: unknown, most: number): unknown[] {
  if (!Array.isArray(value) || value.length > most) {
    throw new RecipeError(`${name} of the link is no list of at most ${most}`);
  }
  return value;
}

function indices(name: string, value: unknown, most: number): number[] {
  return arrayOf(name, value, most).map((each, i) => index(`${name}[${i}]`, each));
}

function index(name: string, value: unknown): number {
  if (!Number.isInteger(value) || (value as number) < 0 || (value as number) > MOST_INDEX) {
    throw new RecipeError(`${name} of the link is no index`);
  }
  return value as number;
}

function numberOf(name: string, value: unknown): number {
  if (typeof value !== "number" || !Number.isFinite(value)) {
    throw new RecipeError(`${name} of the link is no number`);
  }
  return value;
}
