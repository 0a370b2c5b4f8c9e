// The output vectors of neurons, kept under the model's digest: weights never change.

#pragma once

#include <cstdint>
#include <list>
#include <mutex>
#include <optional>
#include <string>

#include "calls.h"
#include "transparent_llm/description.h"
#include "transparent_llm/tensor.h"

namespace transparent_llm::internal {

/// Layers within a limit of bytes; the least recently used go first. Shared by a client and its
/// copies, safe for many threads: two that want the same layer at the same time may both fetch it.
class Weights {
 public:
  explicit Weights(std::uint64_t max_bytes) : max_bytes_(max_bytes) {}

  /// Whether all output vectors of a layer can be kept. False too for a layer that the model does
  /// not have, of which the server says what is wrong.
  bool keeps(const ModelDescription& model, std::int64_t layer) const;
  /// The output vectors of a layer [d_ffn d_model], fetched if they are not kept. Throws
  /// NotFoundError (MODEL_CHANGED) if the model with this digest is not served any more.
  Tensor layer(Connection& connection, const ModelDescription& model, std::int32_t layer,
               const CallTerms& terms);

 private:
  struct Kept {
    std::string digest;
    std::int32_t layer;
    Tensor rows;
  };

  std::optional<Tensor> find(const std::string& digest, std::int32_t layer);
  void keep(Kept kept);

  const std::uint64_t max_bytes_;
  std::mutex mutex_;
  std::list<Kept> kept_;  // the last used first
  std::uint64_t n_bytes_ = 0;
};

}  // namespace transparent_llm::internal
