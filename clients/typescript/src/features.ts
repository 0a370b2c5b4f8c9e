/** What a server can do that an older one cannot. */

import { create } from "@bufbuild/protobuf";
import type { Calls } from "./calls.js";
import { NotSupportedError } from "./errors.js";
import { ServerInfoRequestSchema, TransparentLlmService } from "./gen/transparent_llm/v1/service_pb.js";
import type { Scope } from "./scope.js";
import { SingleFlight } from "./single_flight.js";

/** Asked for once, for a client and its copies. */
export class Features {
  readonly #calls: Calls;
  readonly #flights = new SingleFlight<"features", readonly string[]>();
  #known: readonly string[] | undefined;

  constructor(calls: Calls) {
    this.#calls = calls;
  }

  /** @throws NotSupportedError the server does not know it, and would do something else. */
  async require(feature: string, scope: Scope): Promise<void> {
    this.#known ??= await this.#flights.do("features", scope, async () => {
      const request = create(ServerInfoRequestSchema);
      return (await this.#calls.unary(TransparentLlmService.method.serverInfo, request, scope)).features;
    });
    if (!this.#known.includes(feature)) {
      throw new NotSupportedError(`this server knows no ${feature}; its version is too old`);
    }
  }
}
