// The driver of the client in Node: gRPC. Reads requests from standard input, writes answers to standard output.

import { connect } from "../dist/node.js";
import { answerLines } from "./lines.js";
import { Operations } from "./operations.js";
import { version } from "./version.js";

const operations = new Operations({
  client: "typescript-node",
  version,
  connect: (target, { tls_ca: tlsCa, tls_cert: tlsCert, tls_key: tlsKey, ...options }) =>
    connect(target, { ...options, tlsCa, tlsCert, tlsKey }),
});

await answerLines((line) => operations.answer(line));
process.exit(0); // connections that no one closed would keep the process
