/** Each example in the README prints what the README says. */

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, inject, test } from "vitest";

const PACKAGE = fileURLToPath(new URL("../../", import.meta.url));

/** Each program in it, and what it prints. */
const EXAMPLES = [...readFileSync(`${PACKAGE}README.md`, "utf8").matchAll(/```ts\n(.*?)```.*?```text\n(.*?)```/gs)].map(
  ([, program = "", printed = ""]) => ({ program, printed }),
);

test("all programs in the README say what they print", () => {
  expect(EXAMPLES).toHaveLength(readFileSync(`${PACKAGE}README.md`, "utf8").split("```ts\n").length - 1);
});

test.each(EXAMPLES)("an example in the README", ({ program, printed }) => {
  // Within the package, so that it imports it by its name.
  const folder = mkdtempSync(`${PACKAGE}dist/.readme-`);
  try {
    writeFileSync(`${folder}/example.mjs`, program.replace("127.0.0.1:50051", inject("target")));
    expect(execFileSync(process.execPath, [`${folder}/example.mjs`], { encoding: "utf8" })).toBe(printed);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
