#include "transparent_llm/metrics.h"

#include <utility>

#include "edit_parts.h"
#include "metric_parts.h"
#include "methods.h"
#include "transparent_llm/client.h"
#include "transparent_llm/errors.h"

namespace transparent_llm {

using internal::MetricParts;

namespace {

/// No run has as many rows.
constexpr std::size_t kMostTokens = 4096;

void add_tokens(google::protobuf::RepeatedField<std::int32_t>& added,
                const std::vector<Index>& tokens) {
  if (tokens.empty()) throw InvalidRequestError("a metric of a token names none");
  internal::require_few("tokens of a metric", tokens.size(), kMostTokens);
  internal::add_indices(added, "token", tokens);
}

MetricParts of_kind(v1::MetricKind kind) {
  MetricParts parts;
  parts.message.set_kind(kind);
  if (kind != v1::METRIC_KIND_LOSS) parts.message.set_pos(-1);
  return parts;
}

MetricParts of_tokens(v1::MetricKind kind, const std::vector<Index>& tokens) {
  MetricParts parts = of_kind(kind);
  add_tokens(*parts.message.mutable_token_ids(), tokens);
  return parts;
}

bool is_of_stream(v1::SiteKind kind) {
  return kind == v1::SITE_KIND_RESIDUAL_IN || kind == v1::SITE_KIND_RESIDUAL_AFTER_ATTN ||
         kind == v1::SITE_KIND_RESIDUAL_OUT;
}

}  // namespace

Metric::Metric(MetricParts parts)
    : parts_(std::make_shared<const MetricParts>(std::move(parts))) {}

Metric Metric::logit(const std::vector<Index>& tokens) {
  return Metric(of_tokens(v1::METRIC_KIND_LOGIT, tokens));
}

Metric Metric::logprob(const std::vector<Index>& tokens) {
  return Metric(of_tokens(v1::METRIC_KIND_LOGPROB, tokens));
}

Metric Metric::prob(const std::vector<Index>& tokens) {
  return Metric(of_tokens(v1::METRIC_KIND_PROB, tokens));
}

Metric Metric::loss() { return Metric(of_kind(v1::METRIC_KIND_LOSS)); }

Metric Metric::kl() { return Metric(of_kind(v1::METRIC_KIND_KL)); }

Metric Metric::kl(const Client& other) {
  MetricParts parts = of_kind(v1::METRIC_KIND_KL);
  parts.sources = {other.current_run()};
  parts.message.set_run_id(parts.sources[0]->run_id);
  return Metric(std::move(parts));
}

Metric Metric::entropy() { return Metric(of_kind(v1::METRIC_KIND_ENTROPY)); }

Metric Metric::projection(const Site& site, const Vector& direction) {
  if (!is_of_stream(site.parts().message.kind())) {
    throw InvalidRequestError("a projection is of the residual stream, not of " +
                              internal::name_of(site.parts().message));
  }
  MetricParts parts = of_kind(v1::METRIC_KIND_PROJECTION);
  *parts.message.mutable_site() = site.parts().message;
  *parts.message.mutable_direction() = direction.parts().message;
  parts.sources = direction.parts().sources;
  return Metric(std::move(parts));
}

Metric Metric::minus(const std::vector<Index>& tokens) const {
  if (parts().message.token_ids().empty())
    throw InvalidRequestError("only a metric of tokens has others that are less");
  MetricParts made = parts();
  made.message.clear_minus_token_ids();
  add_tokens(*made.message.mutable_minus_token_ids(), tokens);
  return Metric(std::move(made));
}

Metric Metric::at(Index pos) const {
  if (parts().message.kind() == v1::METRIC_KIND_LOSS)
    throw InvalidRequestError("a loss has no position");
  MetricParts made = parts();
  made.message.set_pos(internal::to_int32("pos", pos));
  return Metric(std::move(made));
}

}  // namespace transparent_llm
