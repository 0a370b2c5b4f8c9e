import { expect, test } from "vitest";
import { diverging, sequential, textOn } from "../../src/shown/scale.js";

/** Red, green and blue of "rgb(…)" or "#rrggbb". */
function channels(colour: string): [number, number, number] {
  const hex = colour.startsWith("#")
    ? colour.match(/[0-9a-f]{2}/g)?.map((pair) => Number.parseInt(pair, 16))
    : undefined;
  return (hex ?? colour.match(/\d+/g)?.map(Number)) as [number, number, number];
}

test("below 0 is orange, above is purple, and none is neither", () => {
  const [[orangeRed, , orangeBlue], [purpleRed, , purpleBlue]] = [
    channels(diverging(-1, 2)),
    channels(diverging(1, 2)),
  ];
  expect(orangeRed).toBeGreaterThan(orangeBlue);
  expect(purpleBlue).toBeGreaterThan(purpleRed);
  const white = channels(diverging(0, 2));
  expect(Math.max(...white) - Math.min(...white)).toBeLessThan(10);
  expect(diverging(5, 0)).toBe(diverging(0, 2));
});

test("text can be read on every shade", () => {
  for (let step = 0; step <= 100; step++) {
    for (const colour of [sequential(step / 100), diverging(step - 50, 50)]) {
      const [lighter, darker] = [luminance(colour), luminance(textOn(colour))].sort((a, b) => b - a) as [
        number,
        number,
      ];
      expect((lighter + 0.05) / (darker + 0.05), colour).toBeGreaterThanOrEqual(4.5);
    }
  }
});

/** Of the contrast of WCAG 2. */
function luminance(colour: string): number {
  const full = colour.length === 4 ? colour.replace(/[0-9a-f]/g, "$&$&") : colour;
  const [r, g, b] = channels(full).map((channel) => {
    const share = channel / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
