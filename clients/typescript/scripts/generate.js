// Generates src/gen from the schema. With --check: fails if what is checked in is something else.

import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL("..", import.meta.url));
const programs = join(here, "node_modules", ".bin");
const generated = join(here, "src", "gen");
const schemas = [join(here, "..", "..", "protos"), join(here, "protos")];

/**
 * The stubs of all schemas, into a folder.
 *
 * @param {string} folder
 */
function generate(folder) {
  const plugin = { local: "protoc-gen-es", out: folder, opt: ["target=ts", "import_extension=js"] };
  const template = JSON.stringify({ version: "v2", plugins: [plugin] });
  const env = { ...process.env, PATH: `${programs}${delimiter}${process.env["PATH"]}` };
  for (const schema of schemas) {
    execFileSync(join(programs, "buf"), ["generate", "--template", template, schema], {
      cwd: schema,
      env,
      stdio: "inherit",
    });
  }
}

/**
 * File name -> text, of all files in a folder.
 *
 * @param {string} folder
 * @returns {Record<string, string>}
 */
function texts(folder) {
  const names = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".ts"));
  return Object.fromEntries(names.sort().map((name) => [name, readFileSync(join(folder, name), "utf8")]));
}

function check() {
  const folder = mkdtempSync(join(tmpdir(), "transparent-llm-gen-"));
  try {
    generate(folder);
    const [wanted, held] = [texts(folder), texts(generated)];
    const names = [...new Set([...Object.keys(wanted), ...Object.keys(held)])];
    const stale = names.filter((name) => wanted[name] !== held[name]);
    if (stale.length > 0) {
      console.error(`src/gen is stale: ${stale.join(", ")}. Run: npm run gen`);
      process.exitCode = 1;
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

if (process.argv.includes("--check")) {
  check();
} else {
  rmSync(generated, { recursive: true, force: true });
  generate(generated);
}
