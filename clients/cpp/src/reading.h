// Values as they come: tensors of streams, put together read by read, and multiplied where factors
// came.

#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "calls.h"
#include "current_run.h"
#include "descriptions.h"
#include "expected.h"
#include "methods.h"
#include "sinks.h"
#include "weights.h"

namespace transparent_llm::internal {

/// What a client and its copies have in common.
struct Shared {
  Shared(std::string target, Options options)
      : connection(std::move(target), std::move(options)),
        weights(std::min(connection.options().weights_bytes, connection.max_bytes())) {}

  Connection connection;
  Descriptions descriptions;
  Weights weights;
};

/// A stream of one tensor.
Tensor receive_one(Connection& connection, const StreamCall& call, const CallTerms& terms,
                   const Expected& expected, const Progress& progress);

/// What came for one read: the value under "", or its factors under their names.
using Parts = std::map<std::string, Tensor>;

/// The tensors of a stream, read by read: each begins with a value or with its first factor. Throws
/// InternalError if they are not those that were asked for.
std::vector<Parts> grouped(std::span<const Asked> asked, std::vector<NamedTensor> arrived);

/// One value of a run.
Tensor read(Shared& shared, const CurrentRun& run, const Read& read, const ReadOptions& options,
            const CallTerms& terms);
/// Many in one stream, in their order.
std::vector<Tensor> read_many(Shared& shared, const CurrentRun& run, std::span<const Read> reads,
                              const ReadOptions& options, const CallTerms& terms);
/// One, chunk by chunk.
void read_chunks(Shared& shared, const CurrentRun& run, const Read& read, const ChunkSink& sink,
                 const ReadOptions& options, const CallTerms& terms);

}  // namespace transparent_llm::internal
