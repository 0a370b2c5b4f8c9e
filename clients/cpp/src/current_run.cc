#include "current_run.h"

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "digest.h"
#include "edit_parts.h"
#include "transparent_llm/errors.h"

namespace transparent_llm::internal {
namespace {

Tensor of_positions(Dtype dtype, const v1::RunResponse& response,
                    std::span<const std::byte> bytes) {
  return Tensor(dtype, {response.batch_size(), response.n_pos()}, {"batch", "pos"}, bytes);
}

/// Longer than the name of any run.
constexpr std::size_t kMostRunId = 256;

struct Sent {
  std::size_t rows = 0;
  /// Tokens of the longest row; 0 where they are not known yet.
  std::size_t longest = 0;
};

Sent sent_by(const v1::RunRequest& request) {
  Sent sent;
  if (!request.has_tokens()) {
    sent.rows = static_cast<std::size_t>(request.sentences().sentences_size());
    return sent;
  }
  sent.rows = static_cast<std::size_t>(request.tokens().sequences_size());
  for (const v1::TokenSequence& row : request.tokens().sequences())
    sent.longest = std::max(sent.longest, static_cast<std::size_t>(row.token_ids_size()));
  return sent;
}

void require_run_of(const v1::RunRequest& request, const v1::RunResponse& response) {
  const Sent sent = sent_by(request);
  const bool is_longest = sent.longest == 0 || response.n_pos() == sent.longest;
  if (response.batch_size() != sent.rows || !is_longest) {
    throw InternalError("the server made a run of " + std::to_string(response.batch_size()) +
                        " rows of " + std::to_string(response.n_pos()) +
                        " positions, not of what was sent");
  }
  if (response.run_id().empty() || response.run_id().size() > kMostRunId) {
    throw InternalError("the server sent a run id of " + std::to_string(response.run_id().size()) +
                        " bytes");
  }
  for (int i = 1; i < response.mask_size(); ++i) {
    const int pos = i % static_cast<int>(response.n_pos());
    if (response.mask(i) && pos != 0 && !response.mask(i - 1))
      throw InternalError("the server put padding before a token: it belongs on the right");
  }
  require_digest(response.model_digest());
}

}  // namespace

CurrentRun current_run(v1::RunRequest request, std::string key, const v1::RunResponse& response,
                       Sources sources) {
  const std::uint64_t n_tokens = std::uint64_t{response.batch_size()} * response.n_pos();
  const auto counted = static_cast<std::uint64_t>(response.token_ids_size());
  const auto masked = static_cast<std::uint64_t>(response.mask_size());
  if (n_tokens == 0 || counted != n_tokens || (masked != 0 && masked != n_tokens)) {
    throw InternalError(
        "the server's answer to Run contradicts itself: " + std::to_string(counted) +
        " tokens and " + std::to_string(masked) + " of a mask for " +
        std::to_string(response.batch_size()) + " rows of " + std::to_string(response.n_pos()));
  }
  require_run_of(request, response);
  std::vector<EditEffect> effects = effects_of(response, request.edits_size());
  const std::vector<std::int64_t> tokens(response.token_ids().begin(), response.token_ids().end());
  const std::vector<std::uint8_t> mask(response.mask().begin(), response.mask().end());
  std::optional<Tensor> told;
  if (!mask.empty()) told = of_positions(Dtype::kBool, response, std::as_bytes(std::span(mask)));
  return {.request = std::move(request),
          .key = std::move(key),
          .run_id = response.run_id(),
          .model_digest = response.model_digest(),
          .tokens = of_positions(Dtype::kI64, response, std::as_bytes(std::span(tokens))),
          .mask = std::move(told),
          .effects = std::move(effects),
          .sources = std::move(sources)};
}

}  // namespace transparent_llm::internal
