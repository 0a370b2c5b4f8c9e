// What runs in the page: the same operations, with gRPC-Web.

import { connect } from "../dist/web.js";
import { Operations } from "./operations.js";

/** @param {string} version */
export function operationsOfPage(version) {
  return new Operations({
    client: "typescript-browser",
    version,
    connect: (target, options) => {
      if (options["tls_ca"] ?? options["tls_cert"] ?? options["tls_key"]) {
        throw new Error("a page brings no certificates of its own");
      }
      return connect(`http://${target}`, options);
    },
  });
}
