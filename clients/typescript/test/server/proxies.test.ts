/** That no proxy sees what is sent: the client in Node.js opens its connections itself. */

import { type AddressInfo, createServer } from "node:net";
import { create } from "@bufbuild/protobuf";
import { expect, test, vi } from "vitest";
import { RunResponseSchema } from "../../src/gen/transparent_llm/v1/service_pb.js";
import { connect } from "../../src/node.js";
import { ScriptedServer } from "../support/scripted_server.js";

const VARIABLES = ["grpc_proxy", "https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];

test("a proxy of the environment hears nothing", async () => {
  let heard = 0;
  const proxy = createServer((socket) => {
    heard++;
    socket.destroy();
  });
  await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  for (const name of VARIABLES) {
    vi.stubEnv(name, `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`);
  }
  vi.stubEnv("no_proxy", "");
  vi.stubEnv("NODE_USE_ENV_PROXY", "1");
  const answer = { runId: "r", batchSize: 1, nPos: 1, tokenIds: [1], modelDigest: "0".repeat(64) };
  const server = await ScriptedServer.start({ run: () => create(RunResponseSchema, answer) });
  const llm = connect(server.address);
  await llm.run(["a secret"]);
  expect(heard).toBe(0);
  llm.close();
  proxy.close();
  await server.close();
  vi.unstubAllEnvs();
});
