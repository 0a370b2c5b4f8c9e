#include "sweeping.h"

#include <grpcpp/impl/codegen/proto_utils.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <string>
#include <utility>

#include "assembler.h"
#include "edit_parts.h"
#include "methods.h"
#include "metric_parts.h"
#include "tensor_access.h"
#include "transparent_llm/errors.h"

namespace transparent_llm::internal {
namespace {

constexpr std::size_t kMostMetrics = 16;
/// Of one call, so that none of many cells runs into a deadline that one of fewer would not.
constexpr std::uint64_t kMostCellsOfCall = 1024;

v1::SweepCell message_of(const SweepCell& cell) {
  v1::SweepCell message;
  if (cell.layer) message.set_layer(to_int32("layer", *cell.layer));
  if (cell.head) message.set_head(to_int32("head", *cell.head));
  if (cell.source_row) message.set_source_row(to_int32("source row", *cell.source_row));
  add_indices(*message.mutable_neurons(), "neuron", cell.neurons);
  add_indices(*message.mutable_positions(), "pos", cell.positions);
  return message;
}

void require_some(const std::string& what, std::size_t count) {
  if (count == 0) throw InvalidRequestError("a sweep has no " + what + ": give at least one");
}

/// An F64 tensor of these numbers.
Tensor tensor_of(const std::vector<double>& values, std::vector<std::size_t> shape,
                 std::vector<std::string> dims) {
  return Tensor(Dtype::kF64, std::move(shape), std::move(dims), std::as_bytes(std::span(values)));
}

}  // namespace

Sweep::Sweep(const std::vector<Edit>& templates, const std::vector<SweepCell>& cells,
             const std::vector<Metric>& metrics, const SweepOptions& options)
    : on_progress_(options.on_progress), n_metrics_(metrics.size()) {
  require_some("templates", templates.size());
  require_some("cells", cells.size());
  require_some("metrics", metrics.size());
  require_few("edits of one cell", templates.size() + options.before.size(), kMostEdits);
  require_few("metrics of one sweep", metrics.size(), kMostMetrics);
  add_indices(*asked_.mutable_rows(), "batch", options.rows);
  add_sources(sources_, add_edits(*asked_.mutable_edits(), options.before));
  add_sources(sources_, add_edits(*asked_.mutable_templates(), templates));
  for (const Metric& metric : metrics) {
    *asked_.add_metrics() = metric.parts().message;
    add_sources(sources_, metric.parts().sources);
  }
  std::transform(cells.begin(), cells.end(), std::back_inserter(cells_), message_of);
}

void Sweep::begin(const CurrentRun& run, const Limits& limits, std::uint64_t max_bytes) {
  if (!has_come_.empty()) return;
  n_rows_ = asked_.rows().empty() ? run.tokens.shape()[0]
                                  : static_cast<std::size_t>(asked_.rows_size());
  const std::uint64_t positions =
      std::max<std::uint64_t>(1, std::uint64_t{n_rows_} * run.tokens.shape()[1]);
  std::uint64_t most = kMostCellsOfCall;
  if (limits.max_sweep_cells > 0) most = std::min<std::uint64_t>(most, limits.max_sweep_cells);
  if (limits.max_sweep_positions > 0) most = std::min(most, limits.max_sweep_positions / positions);
  at_once_ = std::max<std::uint64_t>(1, most);
  const std::uint64_t count = std::uint64_t{cells_.size()} * n_of_cell();
  if (count > max_bytes / sizeof(double)) {
    throw TooLargeError("the sweep has " + std::to_string(count) + " numbers, but this client takes " +
                            std::to_string(max_bytes) + " bytes: sweep fewer cells or rows",
                        {.reason = {},
                         .metadata = {{"needed", std::to_string(count * sizeof(double))},
                                      {"allowed", std::to_string(max_bytes)}},
                         .retry_after = {}});
  }
  values_.resize(count);
  has_come_.resize(cells_.size());
  n_left_ = cells_.size();
}

void Sweep::choose() {
  chosen_.clear();
  for (std::size_t cell = 0; cell < cells_.size() && chosen_.size() < at_once_; ++cell)
    if (!has_come_[cell]) chosen_.push_back(cell);
}

std::shared_ptr<const v1::SweepRequest> Sweep::request(const std::string& run_id) {
  std::erase_if(chosen_, [&](std::size_t cell) { return has_come_[cell]; });
  is_first_ = true;
  auto request = std::make_shared<v1::SweepRequest>(asked_);
  request->set_run_id(run_id);
  for (const std::size_t cell : chosen_) *request->add_cells() = cells_[cell];
  return request;
}

void Sweep::take(grpc::ByteBuffer& buffer) {
  v1::SweepResponse message;
  if (!grpc::SerializationTraits<v1::SweepResponse>::Deserialize(&buffer, &message).ok())
    throw StreamError("a message that is not a SweepResponse");
  const auto n_cells = static_cast<std::size_t>(message.cells_size());
  const std::size_t n_baselines = is_first_ ? n_of_cell() : 0;
  if (static_cast<std::size_t>(message.values_size()) != n_cells * n_of_cell() ||
      static_cast<std::size_t>(message.baselines_size()) != n_baselines ||
      (n_cells == 0 && !is_first_)) {
    throw StreamError(std::to_string(message.values_size()) + " values and " +
                      std::to_string(message.baselines_size()) + " baselines for " +
                      std::to_string(n_cells) + " cells of " + std::to_string(n_metrics_) +
                      " metrics and " + std::to_string(n_rows_) + " rows");
  }
  note(message);
  if (on_progress_) on_progress_(cells_.size() - n_left_, cells_.size());
}

void Sweep::note(const v1::SweepResponse& message) {
  if (is_first_ && baselines_.empty())
    baselines_.assign(message.baselines().begin(), message.baselines().end());
  is_first_ = false;
  const auto width = static_cast<std::ptrdiff_t>(n_of_cell());
  auto values = message.values().begin();
  for (const std::uint32_t number : message.cells()) {
    if (number >= chosen_.size() || has_come_[chosen_[number]])
      throw StreamError("cell " + std::to_string(number) + ", which was not asked for, or twice");
    const std::size_t cell = chosen_[number];
    std::copy_n(values, width, values_.begin() + static_cast<std::ptrdiff_t>(cell) * width);
    values += width;
    has_come_[cell] = true;
    --n_left_;
  }
}

void Sweep::require_all() const {
  if (std::any_of(chosen_.begin(), chosen_.end(), [&](std::size_t cell) { return !has_come_[cell]; }))
    throw StreamError("a sweep that ended before all of its cells had come");
}

Swept Sweep::swept() && {
  return {.baselines = tensor_of(baselines_, {n_metrics_, n_rows_}, {"metric", "row"}),
          .values = tensor_of(values_, {cells_.size(), n_metrics_, n_rows_},
                              {"cell", "metric", "row"})};
}

}  // namespace transparent_llm::internal
