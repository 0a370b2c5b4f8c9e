/** The interpreter of the project, which has its server. */

import { fileURLToPath } from "node:url";

/** The root of the project. */
export const PROJECT = fileURLToPath(new URL("../../../../", import.meta.url));

/** Its path. */
export const PYTHON = process.env["TRANSPARENT_LLM_PYTHON"] ?? `${PROJECT}.venv/bin/python`;
