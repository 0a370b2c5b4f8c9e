import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, encodeBinaryHeader } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { errorOfFailure } from "../../src/failures.js";
import { ErrorInfoSchema, RetryInfoSchema, StatusSchema } from "../../src/gen/google/rpc/error_details_pb.js";
import { errorOfStatus } from "../../src/status.js";

function details(info: MessageInitShape<typeof ErrorInfoSchema>, retryMs?: number): Uint8Array {
  const retryDelay = { seconds: BigInt(Math.floor((retryMs ?? 0) / 1000)), nanos: ((retryMs ?? 0) % 1000) * 1e6 };
  const packed = [anyPack(ErrorInfoSchema, create(ErrorInfoSchema, info))];
  if (retryMs !== undefined) {
    packed.push(anyPack(RetryInfoSchema, create(RetryInfoSchema, { retryDelay })));
  }
  return toBinary(StatusSchema, create(StatusSchema, { code: 1, message: "in the details", details: packed }));
}

describe("with details of ours", () => {
  test.each([
    [11, "INDEX_OUT_OF_RANGE", "IndexOutOfRangeError"],
    [3, "EMPTY_INPUT", "InvalidRequestError"],
    [3, "TOO_LONG", "TooLargeError"],
    [3, "TOO_LARGE", "TooLargeError"],
    [5, "RUN_NOT_FOUND", "NotFoundError"],
    [8, "BUSY", "BusyError"],
    [8, "OUT_OF_MEMORY", "CapacityError"],
    [12, "NOT_SUPPORTED", "NotSupportedError"],
    [14, "LOADING", "UnavailableError"],
    [1, "CANCELLED", "CancelledError"],
    [4, "DEADLINE_EXCEEDED", "DeadlineError"],
    [16, "UNAUTHENTICATED", "AuthError"],
    [7, "PERMISSION_DENIED", "AuthError"],
    [9, "MODEL_REFUSED", "ModelRefusedError"],
    [9, "NOT_RUN", "NotRunError"],
    [13, "INTERNAL", "InternalError"],
    [99, "WHATEVER", "InternalError"],
  ])("%i %s", (code, reason, name) => {
    const bytes = details({ reason, domain: "transparent-llm", metadata: { axis: "layer" } }, 1500);
    const error = errorOfStatus({ code, message: "plain", details: bytes }, "box:1");
    expect(error).toMatchObject({
      name,
      reason,
      message: "in the details",
      metadata: { axis: "layer" },
      retryAfterS: 1.5,
    });
  });

  test("no time to try again after", () => {
    const bytes = details({ reason: "BUSY", domain: "transparent-llm" });
    expect(errorOfStatus({ code: 8, message: "", details: bytes }, "box:1").retryAfterS).toBeUndefined();
  });
});

describe("without", () => {
  test.each([
    [14, "x", "UnavailableError", "UNAVAILABLE", "UNAVAILABLE"],
    [13, "Received RST_STREAM with error code 2", "UnavailableError", "UNAVAILABLE", "INTERNAL"],
    [13, "x", "InternalError", "INTERNAL", "INTERNAL"],
    [2, "x", "InternalError", "INTERNAL", "UNKNOWN"],
    [12, "x", "NotSupportedError", "NOT_SUPPORTED", "UNIMPLEMENTED"],
    [8, "x", "BusyError", "BUSY", "RESOURCE_EXHAUSTED"],
    [5, "x", "NotFoundError", "NOT_FOUND", "NOT_FOUND"],
    [7, "x", "AuthError", "UNAUTHENTICATED", "PERMISSION_DENIED"],
    [99, "x", "InternalError", "INTERNAL", "UNKNOWN"],
  ])("%i %s", (code, message, name, reason, status) => {
    const error = errorOfStatus({ code, message }, "box:1");
    expect(error).toMatchObject({ name, reason, metadata: { status, target: "box:1" } });
  });

  test("a message that is too large", () => {
    const message = "Received message larger than max (9 vs. 4)";
    expect(errorOfStatus({ code: 8, message }, "box:1")).toMatchObject({ name: "TooLargeError", reason: "TOO_LARGE" });
  });

  test.each([
    ["of another domain", details({ reason: "BUSY", domain: "elsewhere" })],
    ["that cannot be read", Uint8Array.of(255, 255)],
    ["that are empty", new Uint8Array(0)],
  ])("details %s", (_, bytes) => {
    const error = errorOfStatus({ code: 8, message: "x", details: bytes }, "box:1");
    expect(error).toMatchObject({ name: "BusyError", reason: "BUSY", metadata: { status: "RESOURCE_EXHAUSTED" } });
  });
});

describe("what Connect throws", () => {
  test("a trailer, in base64 as browsers see it", () => {
    const bytes = details({ reason: "RUN_NOT_FOUND", domain: "transparent-llm", metadata: { run_id: "r" } });
    const trailer = { "grpc-status": "5", "grpc-status-details-bin": encodeBinaryHeader(bytes) };
    const error = errorOfFailure(new ConnectError("x", Code.Internal, trailer), "box:1");
    expect(error).toMatchObject({ name: "NotFoundError", reason: "RUN_NOT_FOUND", metadata: { run_id: "r" } });
  });

  const network = Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET" });
  test.each<[string, unknown]>([
    ["a lost connection in Node", new ConnectError("x", Code.Aborted, undefined, undefined, network)],
    ["one in a browser", new TypeError("network error")],
    ["a stream without an end", ConnectError.from("missing trailer")],
    ["a truncated message", new ConnectError("protocol error: promised 10 bytes, received 3", Code.InvalidArgument)],
    ["a reset stream", new ConnectError("http/2 stream closed with error code INTERNAL_ERROR (0x2)", Code.Internal)],
    ["a closed connection", new ConnectError("http/2 stream closed with error code CANCEL (0x8)", Code.Canceled)],
    ["a proxy without a server", new ConnectError("HTTP 503", Code.Unavailable)],
  ])("%s", (_, thrown) => {
    expect(errorOfFailure(thrown, "box:1")).toMatchObject({ name: "UnavailableError", reason: "UNAVAILABLE" });
  });

  test.each<[string, unknown, string]>([
    ["the end of its time", new ConnectError("the operation timed out", Code.DeadlineExceeded), "DeadlineError"],
    ["a message that is none", new ConnectError("parse binary: premature EOF", Code.Internal), "InternalError"],
    ["a page of another origin", new ConnectError("HTTP 403", Code.PermissionDenied), "AuthError"],
  ])("%s is no lost connection", (_, thrown, name) => {
    expect(errorOfFailure(thrown, "box:1").name).toBe(name);
  });
});

describe("what a status says is taken within bounds", () => {
  test.each([
    { seconds: -1n, nanos: 0 },
    { seconds: 0n, nanos: -1 },
    { seconds: 2n ** 63n - 1n, nanos: 2 ** 31 - 1 },
    { seconds: -(2n ** 63n), nanos: 0 },
    { seconds: 86_401n, nanos: 0 },
    { seconds: 1n, nanos: 2e9 },
  ])("a delay of $seconds s and $nanos ns is none", (retryDelay) => {
    const packed = [
      anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { domain: "transparent-llm", reason: "BUSY" })),
      anyPack(RetryInfoSchema, create(RetryInfoSchema, { retryDelay })),
    ];
    const bytes = toBinary(StatusSchema, create(StatusSchema, { details: packed }));
    expect(errorOfStatus({ code: 8, message: "", details: bytes }, "here")).toMatchObject({
      reason: "BUSY",
      retryAfterS: undefined,
    });
  });

  test("words", () => {
    const said = "\x1b[2J\u202e".repeat(2 ** 16);
    const metadata = { "\x1b[2J": "\x07", ["k".repeat(100)]: "v", long: "v".repeat(2 ** 20) };
    const many = Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`k${i}`, "v"]));
    const info = { domain: "transparent-llm", reason: said, metadata: { ...metadata, ...many } };
    for (const error of [
      errorOfStatus({ code: 14, message: said, details: details(info) }, "here"),
      errorOfStatus({ code: 14, message: said }, "here"),
      errorOfStatus({ code: 2 ** 32, message: said }, "here"),
    ]) {
      const words = JSON.stringify([error.message, error.metadata]);
      expect(words.length).toBeLessThan(2 ** 16);
      expect(`${error.message}${Object.entries(error.metadata).join()}`).not.toMatch(/[\p{Cc}\p{Bidi_Control}]/u);
      expect(Object.keys(error.metadata).length).toBeLessThanOrEqual(32);
      expect(error.reason).toMatch(/^[A-Z_]+$/);
    }
  });
});
