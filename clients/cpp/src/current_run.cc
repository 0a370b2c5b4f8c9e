#include "current_run.h"

#include <span>
#include <utility>
#include <vector>

#include "transparent_llm/errors.h"

namespace transparent_llm::internal {
namespace {

Tensor of_positions(Dtype dtype, const v1::RunResponse& response,
                    std::span<const std::byte> bytes) {
  return Tensor(dtype, {response.batch_size(), response.n_pos()}, {"batch", "pos"}, bytes);
}

}  // namespace

CurrentRun current_run(v1::RunRequest request, std::string key, const v1::RunResponse& response) {
  const std::uint64_t n_tokens = std::uint64_t{response.batch_size()} * response.n_pos();
  const auto counted = static_cast<std::uint64_t>(response.token_ids_size());
  const auto masked = static_cast<std::uint64_t>(response.mask_size());
  if (counted != n_tokens || (masked != 0 && masked != n_tokens) || response.run_id().empty()) {
    throw InternalError(
        "the server's answer to Run contradicts itself: " + std::to_string(counted) +
        " tokens and " + std::to_string(masked) + " of a mask for " +
        std::to_string(response.batch_size()) + " rows of " + std::to_string(response.n_pos()));
  }
  const std::vector<std::int64_t> tokens(response.token_ids().begin(), response.token_ids().end());
  const std::vector<std::uint8_t> mask(response.mask().begin(), response.mask().end());
  std::optional<Tensor> told;
  if (!mask.empty()) told = of_positions(Dtype::kBool, response, std::as_bytes(std::span(mask)));
  return {.request = std::move(request),
          .key = std::move(key),
          .run_id = response.run_id(),
          .model_digest = response.model_digest(),
          .tokens = of_positions(Dtype::kI64, response, std::as_bytes(std::span(tokens))),
          .mask = std::move(told)};
}

}  // namespace transparent_llm::internal
