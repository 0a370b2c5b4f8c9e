/** The example in the README prints what the README says. */

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, inject, test } from "vitest";

const PACKAGE = fileURLToPath(new URL("../../", import.meta.url));

function block(language: string): string {
  const text = readFileSync(`${PACKAGE}README.md`, "utf8");
  return new RegExp(`\`\`\`${language}\n([^]*?)\`\`\``).exec(text)?.[1] ?? expect.unreachable();
}

test("the example in the README", () => {
  // Within the package, so that it imports it by its name.
  const folder = mkdtempSync(`${PACKAGE}dist/.readme-`);
  try {
    writeFileSync(`${folder}/example.mjs`, block("ts").replace("127.0.0.1:50051", inject("target")));
    const printed = execFileSync(process.execPath, [`${folder}/example.mjs`], { encoding: "utf8" });
    expect(printed).toBe(block("text"));
  } finally {
    rmSync(folder, { recursive: true });
  }
});
