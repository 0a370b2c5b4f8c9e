/** The texts of token ids: each is asked for once. */

import type { RemoteTransparentLlm } from "transparent-llm/web";

/** Of one client's model. */
export class TokenNames {
  readonly #llm: RemoteTransparentLlm;
  readonly #most: number;
  readonly #known = new Map<number, string>();

  /** @param most how many ids the server takes at once. */
  constructor(llm: RemoteTransparentLlm, most: number) {
    this.#llm = llm;
    this.#most = most;
  }

  /** Ask for those that are not known yet. */
  async learn(ids: Iterable<number>, signal: AbortSignal): Promise<void> {
    const unknown = [...new Set(ids)].filter((id) => !this.#known.has(id));
    for (let start = 0; start < unknown.length; start += this.#most) {
      const asked = unknown.slice(start, start + this.#most);
      const names = await this.#llm.tokensToStrings(asked, { signal });
      asked.forEach((id, i) => {
        this.#known.set(id, names[i] as string);
      });
    }
  }

  /** The text of an id that was learnt. */
  of(id: number): string {
    return this.#known.get(id) ?? "";
  }
}
