import { expect, test } from "vitest";
import { diverging, sequential, textOn } from "../../src/shown/scale.js";

test("text on any colour of a scale has the contrast that WCAG wants of small text", () => {
  for (let share = 0; share <= 1; share += 0.01) {
    for (const colour of [sequential(share), diverging(2 * share - 1, 1)]) {
      expect(contrast(colour, textOn(colour)), colour).toBeGreaterThanOrEqual(4.5);
    }
  }
});

test("0 of a signed scale is lighter than both ends", () => {
  for (const end of [-1, 1]) {
    expect(contrast("#000", diverging(0, 1))).toBeGreaterThan(contrast("#000", diverging(end, 1)));
  }
});

test.each([Number.NaN, Number.POSITIVE_INFINITY, -5])("%d has a colour too", (value) => {
  expect(sequential(value)).toMatch(/^#|^rgb/);
  expect(diverging(value, 0)).toMatch(/^#|^rgb/);
});

function contrast(a: string, b: string): number {
  const [dark = 0, light = 0] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (light + 0.05) / (dark + 0.05);
}

function luminance(colour: string): number {
  const hex = colour.length === 4 ? colour.replace(/[0-9a-f]/g, "$&$&") : colour;
  const numbers = hex.startsWith("#")
    ? [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16))
    : (hex.match(/\d+/g) ?? []).map(Number);
  const [r = 0, g = 0, b = 0] = numbers.map((channel) => {
    const share = channel / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
