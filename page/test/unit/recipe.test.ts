import { describe, expect, test } from "vitest";
import { fragmentOf, type Recipe, RecipeError, recipeOf } from "../../src/recipe/recipe.js";

const RECIPE: Recipe = {
  model: "demo",
  run: { tokens: [1, 5, 7], edits: [] },
  other: {
    tokens: [1, 5, 8],
    edits: [
      { site: { kind: "head", layer: 1, head: 2 }, positions: "all", op: "scale", factor: 0 },
      { site: { kind: "residual_out", layer: 0 }, positions: [2], op: "patch" },
      { site: { kind: "residual_in", layer: 1 }, positions: "last", op: "steer", token: 9, factor: 0.5 },
      { site: { kind: "head", layer: 0, head: 1 }, positions: [1, 2], op: "patch", sourcePositions: [0, 3] },
      { site: { kind: "neurons", layer: 0, neurons: [4, 5] }, positions: "all", op: "scale", factor: 2 },
    ],
  },
  source: { tokens: [1, 9, 7, 2], edits: [] },
};

/** A link with anything in it. */
function link(value: unknown): string {
  return fragmentOf(value as Recipe);
}

test("a recipe comes back from its link", () => {
  expect(recipeOf(fragmentOf(RECIPE))).toEqual(RECIPE);
});

test("a model's name may have any letters", () => {
  const recipe = { ...RECIPE, model: "модель-模型" };
  expect(recipeOf(fragmentOf(recipe))).toEqual(recipe);
});

test("a recipe needs no source where nothing is patched", () => {
  const recipe = { model: "demo", run: RECIPE.run, other: { tokens: [2], edits: [] } };
  expect(recipeOf(fragmentOf(recipe))).toEqual(recipe);
});

test("an address without a recipe has none", () => {
  expect(recipeOf("")).toBeUndefined();
  expect(recipeOf("#other")).toBeUndefined();
});

describe("a link is refused", () => {
  const edit = RECIPE.other?.edits[0];
  test.each([
    ["that is damaged", "#recipe=%%%"],
    ["that is no JSON", "#recipe=AAAA"],
    ["that is too long", `#recipe=${"A".repeat(200_000)}`],
    ["without a model", link({ run: RECIPE.run })],
    ["without tokens", link({ model: "", run: { edits: [] } })],
    ["with a token that is no index", link({ model: "", run: { tokens: [1.5], edits: [] } })],
    ["with a negative token", link({ model: "", run: { tokens: [-1], edits: [] } })],
    ["with too many tokens", link({ model: "", run: { tokens: Array(5000).fill(1), edits: [] } })],
    ["with an edit that nobody knows", link({ model: "", run: { tokens: [1], edits: [{ ...edit, op: "eval" }] } })],
    [
      "with a site that nobody knows",
      link({ model: "", run: { tokens: [1], edits: [{ ...edit, site: { kind: "x", layer: 0 } }] } }),
    ],
    ["that patches from nothing", link({ ...RECIPE, source: undefined })],
    ["that patches from nothing at first", link({ model: "", run: RECIPE.other })],
    ["whose source patches itself", link({ ...RECIPE, source: RECIPE.other })],
    ["whose source is no run", link({ ...RECIPE, source: [1] })],
    ["with too many edits", link({ model: "", run: { tokens: [1], edits: Array(65).fill(edit) } })],
    ["with a factor that is no number", link({ model: "", run: { tokens: [1], edits: [{ ...edit, factor: "1" }] } })],
  ])("%s", (_, fragment) => {
    expect(() => recipeOf(fragment)).toThrow(RecipeError);
  });
});
