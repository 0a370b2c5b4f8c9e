#include "weights.h"

#include <array>
#include <string_view>
#include <utility>

#include "reading.h"
#include "sizes.h"
#include "transparent_llm/errors.h"

namespace transparent_llm::internal {

bool Weights::keeps(const ModelDescription& model, std::int64_t layer) const {
  if (layer < 0 || static_cast<std::uint64_t>(layer) >= model.d_ffn.size()) return false;
  const std::array<std::uint64_t, 2> shape = {model.d_ffn[static_cast<std::size_t>(layer)],
                                              model.info.d_model};
  const auto needed =
      bytes_of(std::span<const std::uint64_t>(shape), size_of(model.dtype.value_or(Dtype::kF32)));
  return needed && *needed != 0 && *needed <= max_bytes_;
}

Tensor Weights::layer(Connection& connection, const ModelDescription& model, std::int32_t layer,
                      const CallTerms& terms) {
  if (auto found = find(model.digest, layer)) return *std::move(found);
  if (layer < 0 || static_cast<std::size_t>(layer) >= model.d_ffn.size())
    throw InternalError(connection.target() + " now describes its model with fewer layers");
  v1::NeuronOutputsRequest request;
  request.set_model(model.info.name);
  request.set_layer(layer);
  request.set_model_digest(model.digest);
  const auto call = stream_call("neuron_outputs", std::move(request));
  CallTerms of_no_run = terms;
  of_no_run.run_key.clear();
  const Expected expected(
      {{.method = &method_named("neuron_outputs"),
        .lengths = {{"d_ffn", model.d_ffn[static_cast<std::size_t>(layer)]},
                    {"d_model", model.info.d_model}}}});
  Tensor rows = receive_one(connection, call, of_no_run, expected, {});
  keep({model.digest, layer, rows});
  return rows;
}

std::optional<Tensor> Weights::find(const std::string& digest, std::int32_t layer) {
  const std::lock_guard lock(mutex_);
  for (auto kept = kept_.begin(); kept != kept_.end(); ++kept) {
    if (kept->layer != layer || kept->digest != digest) continue;
    kept_.splice(kept_.begin(), kept_, kept);
    return kept->rows;
  }
  return std::nullopt;
}

void Weights::keep(Kept kept) {
  const std::lock_guard lock(mutex_);
  kept_.remove_if([&](const Kept& other) {  // that another thread has fetched meanwhile
    const bool is_same = other.layer == kept.layer && other.digest == kept.digest;
    if (is_same) n_bytes_ -= other.rows.bytes().size();
    return is_same;
  });
  n_bytes_ += kept.rows.bytes().size();
  kept_.push_front(std::move(kept));
  while (n_bytes_ > max_bytes_) {
    n_bytes_ -= kept_.back().rows.bytes().size();
    kept_.pop_back();
  }
}

}  // namespace transparent_llm::internal
