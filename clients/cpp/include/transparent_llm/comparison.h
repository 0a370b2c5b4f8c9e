// What two runs say of the next token, row by row.

#pragma once

#include <chrono>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "transparent_llm/index.h"

namespace transparent_llm {

/// Of `Client::compare`.
struct CompareOptions {
  /// Compare rows, which are then of the same tokens in both runs, at each position from this one to
  /// their last token too; negative: from the end of the shortest row.
  std::optional<Index> from_pos = std::nullopt;
  /// In place of `Options::timeout`.
  std::optional<std::chrono::milliseconds> timeout = std::nullopt;
  /// Cancels the call: it then throws CancelledError at once, and the server is told.
  std::stop_token stop_token = {};
};

/// One row of a run beside the same row of another, each at its last token.
struct RowComparison {
  /// KL(run || other) of the next token, in nats, summed in double precision: 0 where both say the
  /// same.
  double kl = 0;
  /// The most likely next token of the run, and its text.
  Index top_token = 0;
  std::string top_string;
  /// That of the other run.
  Index other_top_token = 0;
  std::string other_top_string;
  /// The same divergence at each position from that of `CompareOptions::from_pos` to the row's last
  /// token; empty without.
  std::vector<double> kl_by_pos;

  bool operator==(const RowComparison&) const = default;
};

}  // namespace transparent_llm
