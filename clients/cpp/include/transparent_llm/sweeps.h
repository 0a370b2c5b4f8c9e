// Sweeps: the same change at many places, one at a time, and what each does to some numbers.
//
//   const auto heads = {SweepCell{.layer = 0, .head = 0}, SweepCell{.layer = 0, .head = 1}};
//   llm.sweep({Edit::zero(Site::head(0, 0), Selection::all())}, heads, {Metric::logit({king})});

#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <optional>
#include <stop_token>
#include <vector>

#include "transparent_llm/edits.h"
#include "transparent_llm/index.h"
#include "transparent_llm/metrics.h"
#include "transparent_llm/tensor.h"

namespace transparent_llm {

/// Coordinates that are put in the places of those of each template. What is absent or empty stays as
/// it is there.
struct SweepCell {
  std::optional<Index> layer = std::nullopt;
  /// Instead of the site's head, or of all its heads.
  std::optional<Index> head = std::nullopt;
  /// Instead of the site's neurons.
  std::vector<Index> neurons = {};
  /// Instead of the positions, and of those of a patch's source.
  std::vector<Index> positions = {};
  /// Of a patch, the one row that all are taken from.
  std::optional<Index> source_row = std::nullopt;
};

/// Of `Client::sweep`.
struct SweepOptions {
  /// Of the run, which are swept. None: all.
  std::vector<Index> rows = {};
  /// Made in every cell as they stand, before the templates.
  std::vector<Edit> before = {};
  /// Called on the calling thread with how many cells have come, of how many. What it throws ends the
  /// sweep and comes out of the call.
  std::function<void(std::size_t came, std::size_t all)> on_progress = {};
  /// In place of `Options::timeout`.
  std::optional<std::chrono::milliseconds> timeout = std::nullopt;
  /// Cancels the call: it then throws CancelledError at once, and the server is told.
  std::stop_token stop_token = {};
};

/// The answer of `Client::sweep`.
struct Swept {
  /// F64 [metric row] of the run with the edits of `SweepOptions::before` alone.
  Tensor baselines;
  /// F64 [cell metric row]
  Tensor values;
};

}  // namespace transparent_llm
