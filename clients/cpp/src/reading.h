// Values as they come: tensors of streams, put together read by read, and multiplied where factors
// came.

#pragma once

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "calls.h"
#include "current_run.h"
#include "descriptions.h"
#include "expected.h"
#include "kept_values.h"
#include "methods.h"
#include "sinks.h"
#include "weights.h"

namespace transparent_llm::internal {

/// What a client and its copies have in common.
struct Shared {
  Shared(const std::vector<std::string>& targets, Options options)
      : connection(targets, std::move(options)),
        weights(std::min(connection.options().weights_bytes, connection.max_bytes())),
        kept(connection.options().cache_bytes) {}

  Connection connection;
  Descriptions descriptions;
  Weights weights;
  KeptValues kept;
};

/// A stream of one tensor.
Tensor receive_one(Connection& connection, const StreamCall& call, const CallTerms& terms,
                   const ExpectedTensors& expected, const Progress& progress);

/// The tensors of a stream, value by value: each begins with the value itself, under "", or with
/// the first of its parts, which come in their order. Throws InternalError if they are not those that
/// were asked for.
std::vector<Parts> grouped(std::span<const Method* const> wanted, std::vector<NamedTensor> arrived);

/// One value of a run: its tensor under "", or its parts under their names.
Parts read(Shared& shared, const CurrentRun& run, const Read& read, const ReadOptions& options,
           const CallTerms& terms);
/// Many in one stream, in their order.
std::vector<Parts> read_many(Shared& shared, const CurrentRun& run, std::span<const Read> reads,
                             const ReadOptions& options, const CallTerms& terms);
/// Reads in one stream, whatever is kept: by Fetch, or of one by its own call.
std::vector<Parts> read_of(Shared& shared, const CurrentRun& run, std::span<const Read> reads,
                           const ReadOptions& options, const CallTerms& terms, bool by_fetch);
/// What reads would bring, in their order.
std::vector<PlannedRead> planned(Shared& shared, const CurrentRun& run,
                                 std::span<const Read> reads, const ReadOptions& options,
                                 const CallTerms& terms);
/// Values of a model alone, by the call that its own request makes.
std::vector<NamedTensor> collected(Connection& connection, const StreamCall& call,
                                   const CallTerms& terms, const ExpectedTensors& expected,
                                   const Progress& progress);
/// Throws InvalidRequestError for a read of several tensors, where `taker` takes one.
void require_one_tensor(const Method& method, std::string_view taker);
/// One of one tensor, chunk by chunk.
void read_chunks(Shared& shared, const CurrentRun& run, const Read& read, const ChunkSink& sink,
                 const ReadOptions& options, const CallTerms& terms);

}  // namespace transparent_llm::internal
