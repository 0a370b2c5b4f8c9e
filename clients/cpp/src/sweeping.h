// One sweep under way, which holds what comes to what was asked for.

#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

#include "current_run.h"
#include "transparent_llm/description.h"
#include "transparent_llm/sweeps.h"
#include "transparent_llm/v1/service.pb.h"

namespace transparent_llm::internal {

class Sweep {
 public:
  /// Throws InvalidRequestError for no template, cell or metric, and for edits that make no sense;
  /// TooLargeError for too many edits or metrics.
  Sweep(const std::vector<Edit>& templates, const std::vector<SweepCell>& cells,
        const std::vector<Metric>& metrics, const SweepOptions& options);

  /// Runs that it takes from.
  const Sources& sources() const { return sources_; }
  /// Takes memory for the answer, once. Throws TooLargeError for more than `max_bytes`.
  void begin(const CurrentRun& run, const Limits& limits, std::uint64_t max_bytes);
  /// Whether cells are left that have not come.
  bool is_left() const { return n_left_ > 0; }
  /// Takes some of those for the next call.
  void choose();
  /// For those of the chosen cells that have not come.
  std::shared_ptr<const v1::SweepRequest> request(const std::string& run_id);
  /// Takes a message of the answer. Throws StreamError for one that is not of these cells, and what
  /// `on_progress` throws.
  void take(grpc::ByteBuffer& buffer);
  /// Throws StreamError if the answer has ended before all of its cells had come.
  void require_all() const;
  Swept swept() &&;

 private:
  void note(const v1::SweepResponse& message);
  std::size_t n_of_cell() const { return n_metrics_ * n_rows_; }

  v1::SweepRequest asked_;  // without cells
  std::vector<v1::SweepCell> cells_;
  Sources sources_;
  std::function<void(std::size_t, std::size_t)> on_progress_;
  std::size_t n_metrics_ = 0;
  std::size_t n_rows_ = 0;
  std::size_t at_once_ = 0;
  std::size_t n_left_ = 0;
  std::vector<bool> has_come_;
  std::vector<double> baselines_;
  std::vector<double> values_;
  /// Numbers of the cells of the call.
  std::vector<std::size_t> chosen_;
  /// Whether the next message is the first of its answer.
  bool is_first_ = false;
};

}  // namespace transparent_llm::internal
