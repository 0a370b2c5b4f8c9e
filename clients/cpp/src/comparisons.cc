// The method of Client that compares runs.

#include <algorithm>
#include <utility>

#include "client_impl.h"
#include "legible.h"
#include "row_length.h"
#include "transparent_llm/comparison.h"

namespace transparent_llm {

using internal::CallTerms;
using internal::CurrentRun;
using internal::Stub;

namespace {

/// Characters that are kept of a token.
constexpr std::size_t kLongestToken = 1000;

/// Tokens of each row.
std::vector<std::size_t> lengths_of(const CurrentRun& run) {
  std::vector<std::size_t> lengths(run.tokens.shape()[0], run.tokens.shape()[1]);
  for (std::size_t row = 0; run.mask && row < lengths.size(); ++row)
    lengths[row] = internal::row_length(*run.mask, row);
  return lengths;
}

/// The first position that is compared, from the front.
std::size_t first_of(Index from_pos, const std::vector<std::size_t>& lengths) {
  const auto shortest = static_cast<Index>(*std::min_element(lengths.begin(), lengths.end()));
  const Index first = from_pos < 0 && from_pos >= -shortest ? from_pos + shortest : from_pos;
  if (first >= 0 && first < shortest) return static_cast<std::size_t>(first);
  throw IndexOutOfRangeError("from_pos " + std::to_string(from_pos) +
                                 " is out of range: valid positions are " +
                                 std::to_string(-shortest) + " to " + std::to_string(shortest - 1),
                             {.reason = {},
                              .metadata = {{"axis", "from_pos"},
                                           {"size", std::to_string(shortest)},
                                           {"got", std::to_string(from_pos)}},
                              .retry_after = {}});
}

RowComparison comparison_of(const v1::RowComparison& wire, std::size_t n_compared) {
  const auto& by_pos = wire.kl_by_pos();
  if (static_cast<std::size_t>(by_pos.size()) != n_compared) {
    throw InternalError("the server compared " + std::to_string(by_pos.size()) +
                        " positions of a row, not " + std::to_string(n_compared));
  }
  const bool is_below =
      std::any_of(by_pos.begin(), by_pos.end(), [](double kl) { return kl < 0; });
  if (is_below || wire.kl() < 0 || wire.top_id() < 0 || wire.other_top_id() < 0)
    throw InternalError("the server sent a divergence below 0, or a negative token id");
  return {.kl = wire.kl(),
          .top_token = wire.top_id(),
          .top_string = internal::legible(wire.top_string(), kLongestToken),
          .other_top_token = wire.other_top_id(),
          .other_top_string = internal::legible(wire.other_top_string(), kLongestToken),
          .kl_by_pos = {by_pos.begin(), by_pos.end()}};
}

}  // namespace

std::vector<RowComparison> Client::compare(const Client& other, const CompareOptions& options) {
  const auto source = other.current_run();
  const ReadOptions of_call{.timeout = options.timeout, .stop_token = options.stop_token};
  return impl().of_run(of_call, [&](const CurrentRun& run, const CallTerms& terms) {
    impl().require_offered(options.from_pos ? "compare_positions" : "compare_runs", "comparisons",
                           terms);
    v1::CompareRunsRequest request;
    request.set_run_id(run.run_id);
    request.set_other_run_id(source->run_id);
    std::vector<std::size_t> lengths = lengths_of(run);
    const std::size_t first = options.from_pos ? first_of(*options.from_pos, lengths) : 0;
    if (options.from_pos) request.set_from_pos(static_cast<std::uint32_t>(first));
    const auto response = impl().bringing({source}, terms, [&] {
      return internal::unary(impl().connection(), &Stub::CompareRuns, request, terms);
    });
    if (static_cast<std::size_t>(response.rows_size()) != lengths.size()) {
      throw InternalError("the server compared " + std::to_string(response.rows_size()) +
                          " rows of " + std::to_string(lengths.size()));
    }
    std::vector<RowComparison> rows;
    for (const v1::RowComparison& row : response.rows()) {
      const std::size_t n_compared = options.from_pos ? lengths[rows.size()] - first : 0;
      rows.push_back(comparison_of(row, n_compared));
    }
    return rows;
  });
}

}  // namespace transparent_llm
