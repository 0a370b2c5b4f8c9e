/** TLS, certificates of clients, and a model in half precision, with a server of its own. */

import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { connect, type NodeOptions } from "../../src/node.js";
import { Certificates } from "../support/certificates.js";
import type { Child } from "../support/child.js";
import { expectSame } from "../support/same_value.js";
import { startServer } from "../support/server.js";

let certificates: Certificates;
let server: Child;
let good: NodeOptions;

beforeAll(async () => {
  certificates = new Certificates("server", "client");
  const [ca, cert, key] = ["ca.pem", "server.pem", "server.key"].map((name) => certificates.path(name)) as [
    string,
    string,
    string,
  ];
  const tls = ["--tls-cert", cert, "--tls-key", key, "--tls-client-ca", ca];
  server = await startServer(...tls, "--dtype", "bfloat16");
  good = { tlsCa: ca, tlsCert: certificates.path("client.pem"), tlsKey: certificates.path("client.key") };
});

afterAll(async () => {
  await server.stop();
  certificates.remove();
});

test("by the paths of files", async () => {
  const llm = connect(server.said, good);
  expect((await llm.modelInfo()).name).toBe("demo");
  llm.close();
});

test("as text", async () => {
  const texts = Object.entries(good).map(([name, path]) => [name, readFileSync(path as string, "utf8")]);
  const llm = connect(server.said, Object.fromEntries(texts));
  expect((await llm.modelInfo()).name).toBe("demo");
  llm.close();
});

describe("no connection", () => {
  test.each<[string, (of: NodeOptions) => NodeOptions, RegExp]>([
    ["with an authority that has not signed", (of) => ({ ...of, tlsCa: "system" }), /no authority in tlsCa/],
    ["without TLS", () => ({}), /no server answers/],
    ["without a certificate", ({ tlsCa }) => ({ tlsCa }), /no (server answers|connection)/],
  ])("%s", async (_, options, message) => {
    const llm = connect(server.said, options(good));
    await expect(llm.modelInfo({ timeoutMs: 30_000 })).rejects.toMatchObject({ name: "UnavailableError", message });
    llm.close();
  });

  test("with a key of another certificate", () => {
    const options = { ...good, tlsKey: certificates.path("server.key") };
    expect(() => connect(server.said, options)).toThrow(expect.objectContaining({ name: "InvalidRequestError" }));
  });
});

test("products in BF16 have the bits of the server's", async () => {
  const llm = connect(server.said, good);
  await llm.run(["My lord, I shall reply"]);
  const dense = { slices: { d_model: { start: 0 } } };
  const attn = await llm.decomposedAttn(0, 1);
  expect(attn.dtype).toBe("BF16");
  expectSame(attn, await llm.decomposedAttn(0, 1, dense));
  expectSame(await llm.decomposedFfnOut(0, 1, 2), await llm.decomposedFfnOut(0, 1, 2, dense));
  llm.close();
});
