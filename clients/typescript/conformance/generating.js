// Generations of tests/conformance/README.md, by the client.

/** @typedef {import("../dist/index.js").RemoteTransparentLlm} Client */
/** @typedef {import("../dist/index.js").GenerationStep} Step */

/**
 * What comes, step by step, and the run that is the current one afterwards.
 *
 * @param {Client} client
 * @param {Record<string, any>} generation
 * @param {import("../dist/index.js").GenerateOptions} options
 */
export async function generated(client, { prompts, messages, ...given }, { signal, edits }) {
  /** @type {(Record<string, any> | null)[][]} */
  const steps = [];
  const options = {
    ...{ signal, edits, stop: given["stop"], seed: given["seed"] },
    ...{ maxNewTokens: given["max_new_tokens"], topLogprobs: given["top_logprobs"], temperature: given["temperature"] },
    ...{ topK: given["top_k"] ?? undefined, topP: given["top_p"] ?? undefined },
    onStep: (/** @type {Step} */ step) => steps.push(step.map((token) => token ?? null).map(encodedToken)),
  };
  if (messages !== undefined) {
    await client.generateChat(messages, options);
  } else if (Array.isArray(prompts?.[0])) {
    await client.generateTokens(prompts, options);
  } else {
    await client.generate(prompts, options);
  }
  return { steps, run_id: client.runId };
}

/** @param {Step[number] | null} token */
function encodedToken(token) {
  if (!token) {
    return null;
  }
  const { tokenId, text, logprob, finished, topIds, topLogprobs } = token;
  return {
    ...{ token_id: tokenId, text, logprob, finished: finished ?? null },
    ...{ top_ids: topIds, top_logprobs: topLogprobs },
  };
}
