// What a connection, a call and a read can be asked for.

#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <stop_token>
#include <string>

#include "transparent_llm/dtype.h"

namespace transparent_llm {

/// How a client connects, and what holds for all its calls.
struct Options {
  /// Name of the model, needed only where several are served.
  std::string model = {};
  /// For each call as a whole: transfer, reconnecting and running again included.
  std::chrono::milliseconds timeout = std::chrono::minutes(5);
  /// Run the input again when the server no longer has the run. False: throw NotFoundError
  /// (RUN_NOT_FOUND).
  bool rerun = true;
  /// Sent as a bearer token with every call. Empty: none.
  std::string token = {};
  /// A PEM file of CA certificates to trust; turns TLS on. Empty: no TLS.
  std::filesystem::path tls_ca = {};
  /// A PEM file of a certificate, with its chain, to show to the server. Empty: none is shown.
  std::filesystem::path tls_cert = {};
  /// A PEM file of its private key, not encrypted.
  std::filesystem::path tls_key = {};
  /// The most bytes that one value may take here; a larger one throws TooLargeError before memory
  /// is taken for it. Absent: half of the memory of this machine, or of its container; 4 GiB where
  /// it cannot be told how much that is.
  std::optional<std::uint64_t> max_bytes = std::nullopt;
  /// The most bytes of neurons' output vectors that are kept for `decomposed_ffn_out`. A layer that
  /// takes more is not kept; its values are multiplied by the server.
  std::uint64_t weights_bytes = std::uint64_t{1} << 30;
  /// The most bytes of values of current runs that are kept, so that asking twice sends nothing
  /// twice; the least recently read go first, and those of runs that no client has any more. One
  /// that takes more than a quarter of it is not kept. 0: none. What is kept cannot be changed by a
  /// reader: a `Tensor` is immutable.
  std::uint64_t cache_bytes = std::uint64_t{512} << 20;
  /// How long a call waits for a server that had answered before and was lost, within its time. 0:
  /// not at all.
  std::chrono::milliseconds reconnect = std::chrono::seconds(30);
  /// The proxy of the connection: "http://[USER:PASS@]HOST[:PORT]"; "environment" for that of
  /// https_proxy and its kin; "none" or empty for never one. Absent: TRANSPARENT_LLM_PROXY, which
  /// has the same values; without it the environment's, but only with TLS and never to this host or
  /// a private network. What no_proxy names is reached directly, and so are unix sockets.
  std::optional<std::string> proxy = std::nullopt;
};

/// What one call can be given beyond its arguments.
struct CallOptions {
  /// In place of `Options::timeout`.
  std::optional<std::chrono::milliseconds> timeout = std::nullopt;
  /// Cancels the call: it then throws CancelledError at once, and the server is told.
  std::stop_token stop_token = {};
};

/// A part of one axis, as in Python's `start:stop:step`.
struct Slice {
  /// First index; negative counts from the end. Absent: 0.
  std::optional<std::int64_t> start = std::nullopt;
  /// Index after the last; negative counts from the end. Absent: the length of the axis.
  std::optional<std::int64_t> stop = std::nullopt;
  /// Distance of two indices, at least 1. Absent: 1.
  std::optional<std::int64_t> step = std::nullopt;
};

/// What one read can be asked for beyond its arguments.
struct ReadOptions {
  /// The parts of axes that are wanted, by the names of the axes; the server cuts before it sends.
  /// A value keeps its axes, which are shorter. InvalidRequestError (INVALID_SLICE) for an axis that
  /// the value does not have, or one of those of a `fetch`, or a step below 1.
  std::map<std::string, Slice> slices = {};
  /// The element type that floating values are sent in. Absent: as the server holds them.
  /// InvalidRequestError (INVALID_DTYPE) for one that is not floating.
  std::optional<Dtype> dtype = std::nullopt;
  /// In place of `Options::timeout`.
  std::optional<std::chrono::milliseconds> timeout = std::nullopt;
  /// Cancels the read: it then throws CancelledError at once, and the server is told.
  std::stop_token stop_token = {};
  /// Called on the reading thread after each message of a transfer with the bytes that have come
  /// and those that are known to come. The first falls when a transfer begins again. Of a value
  /// whose factors come, these are counted.
  std::function<void(std::uint64_t received_bytes, std::uint64_t total_bytes)> on_progress = {};
};

}  // namespace transparent_llm
