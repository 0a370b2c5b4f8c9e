/** Clients in browsers: gRPC-Web, to the server's own port for pages or through Envoy. */

import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { RemoteTransparentLlm } from "./client.js";
import { InvalidRequestError } from "./errors.js";
import type { ClientOptions } from "./options.js";

export * from "./index.js";

/**
 * A client of the server that sent the page, `location.origin`, or of the Envoy at an address, as in
 * `http://gpu-box:50051`, whose CORS policy must name the page's origin.
 * Nothing is sent before the first call.
 *
 * @throws InvalidRequestError the address is no URL, or options contradict each other.
 */
export function connect(baseUrl: string, options: ClientOptions = {}): RemoteTransparentLlm {
  if (!URL.canParse(baseUrl) || !/^https?:$/.test(new URL(baseUrl).protocol)) {
    throw new InvalidRequestError(`"${baseUrl}" is not an address; write http://HOST:PORT, or https://`);
  }
  return new RemoteTransparentLlm({ transport: createGrpcWebTransport({ baseUrl }), target: baseUrl }, options);
}
