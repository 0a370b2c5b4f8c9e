import { expect, test } from "vitest";
import { signed } from "../../src/shown/signed.js";

test.each([
  [1.25, "+1.2500"],
  [-0.3337712, "−0.3338"],
  [0, "+0.0000"],
  [4.77e-7, "+4.8e-7"],
  [-0.00004, "−4.0e-5"],
])("%d is shown as %s", (value, shown) => {
  expect(signed(value)).toBe(shown);
});
