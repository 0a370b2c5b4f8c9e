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
    ],
  },
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
    ["with a factor that is no number", link({ model: "", run: { tokens: [1], edits: [{ ...edit, factor: "1" }] } })],
  ])("%s", (_, fragment) => {
    expect(() => recipeOf(fragment)).toThrow(RecipeError);
  });
});
