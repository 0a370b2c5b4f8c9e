/** Connections to one server, wide enough for tensors over a distance. */

import type {
  ClientHttp2Session,
  ClientHttp2Stream,
  ClientSessionRequestOptions,
  OutgoingHttpHeaders,
} from "node:http2";
import { Http2SessionManager } from "@connectrpc/connect-node";

/**
 * What may be on its way of one tensor, and of all of a connection's. With the 64 KiB of HTTP/2 a server 50 ms away
 * sends 1 MB a second.
 */
export const WINDOW_BYTES = 8 * 2 ** 20;

/** Widens each connection that it opens; the windows of streams are a setting, that of a connection is not. */
export class Http2Sessions extends Http2SessionManager {
  readonly #widened = new WeakSet<ClientHttp2Session>();

  override async request(
    method: string,
    path: string,
    headers: OutgoingHttpHeaders,
    options: Omit<ClientSessionRequestOptions, "signal">,
  ): Promise<ClientHttp2Stream> {
    const stream = await super.request(method, path, headers, options);
    const { session } = stream;
    if (session !== undefined && !session.destroyed && !this.#widened.has(session as ClientHttp2Session)) {
      this.#widened.add(session as ClientHttp2Session);
      session.setLocalWindowSize(WINDOW_BYTES);
    }
    return stream;
  }
}
