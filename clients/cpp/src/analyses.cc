// The methods of Client that are computed next to the weights.

#include "transparent_llm/analyses.h"

#include <utility>

#include "transparent_llm/client.h"

namespace transparent_llm {
namespace {

/// A part that is there: what comes is looked through before.
Tensor take(Parts& parts, const char* name) { return std::move(parts.at(name)); }

ContributionEdges edges_of(Parts came) {
  return {.attention = take(came, "attention"),
          .attention_residual = take(came, "attention_residual"),
          .ffn = take(came, "ffn"),
          .ffn_residual = take(came, "ffn_residual")};
}

}  // namespace

LayerLens Client::layer_lens(Index batch_i, Index layer, const LayerLensOptions& asked,
                             const ReadOptions& options) {
  Parts came = read_parts(Read::layer_lens(batch_i, layer, asked), options);
  const auto kl = came.find("kl");
  return {.top_ids = take(came, "top_ids"),
          .top_logits = take(came, "top_logits"),
          .bottom_ids = take(came, "bottom_ids"),
          .bottom_logits = take(came, "bottom_logits"),
          .target_logits = take(came, "target_logits"),
          .target_ranks = take(came, "target_ranks"),
          .logsumexp = take(came, "logsumexp"),
          .entropy = take(came, "entropy"),
          .kl = kl == came.end() ? std::nullopt : std::optional(std::move(kl->second))};
}

TokenLogprobs Client::token_logprobs(Index batch_i, const ReadOptions& options) {
  Parts came = read_parts(Read::token_logprobs(batch_i), options);
  return {.logprobs = take(came, "logprobs"), .ranks = take(came, "ranks")};
}

AttnContributions Client::attn_contributions(Index batch_i, Index layer, ContributionNorm norm,
                                             const ReadOptions& options) {
  Parts came = read_parts(Read::attn_contributions(batch_i, layer, norm), options);
  return {.heads = take(came, "heads"), .residual = take(came, "residual")};
}

ContributionEdges Client::contribution_edges(Index batch_i, Index layer, const EdgeOptions& asked,
                                             const ReadOptions& options) {
  return edges_of(read_parts(Read::contribution_edges(batch_i, layer, asked), options));
}

ContributionEdges Client::contribution_edges_to(Index batch_i, Index layer,
                                                const EdgeToOptions& asked,
                                                const ReadOptions& options) {
  return edges_of(read_parts(Read::contribution_edges_to(batch_i, layer, asked), options));
}

NeuronContributions Client::neuron_contributions(Index batch_i, Index layer, Index pos, Index k,
                                                 ContributionNorm norm,
                                                 const ReadOptions& options) {
  Parts came = read_parts(Read::neuron_contributions(batch_i, layer, pos, k, norm), options);
  return {.ids = take(came, "ids"),
          .values = take(came, "values"),
          .residual = take(came, "residual")};
}

LogitTerms Client::logit_terms(Index batch_i, Index pos, Index token,
                               std::optional<Index> minus_token, const ReadOptions& options) {
  Parts came = read_parts(Read::logit_terms(batch_i, pos, token, minus_token), options);
  return {.logit = take(came, "logit"),
          .embedding = take(came, "embedding"),
          .layers = take(came, "layers"),
          .norm_bias = take(came, "norm_bias"),
          .unembed_bias = take(came, "unembed_bias"),
          .scale = take(came, "scale")};
}

LogitAttribution Client::logit_attribution(Index batch_i, Index layer, Index pos, Index token,
                                           std::optional<Index> minus_token,
                                           const ReadOptions& options) {
  Parts came = read_parts(Read::logit_attribution(batch_i, layer, pos, token, minus_token), options);
  return {.heads = take(came, "heads"),
          .attn_bias = take(came, "attn_bias"),
          .ffn = take(came, "ffn"),
          .ffn_bias = take(came, "ffn_bias")};
}

Tensor Client::source_attribution(Index batch_i, Index layer, Index pos, Index token,
                                  std::optional<Index> minus_token, const ReadOptions& options) {
  return read(Read::source_attribution(batch_i, layer, pos, token, minus_token), options);
}

NeuronAttribution Client::neuron_attribution(Index batch_i, Index layer, Index pos, Index token,
                                             Index k, std::optional<Index> minus_token,
                                             const ReadOptions& options) {
  Parts came =
      read_parts(Read::neuron_attribution(batch_i, layer, pos, token, k, minus_token), options);
  return {.ids = take(came, "ids"), .values = take(came, "values"), .rest = take(came, "rest")};
}

Tensor Client::attention_matrices(Index batch_i, Index layer, const ReadOptions& options) {
  return read(Read::attention_matrices(batch_i, layer), options);
}

Tensor Client::head_scores(Index batch_i, Index layer, HeadScoreKind kind,
                           const ReadOptions& options) {
  return read(Read::head_scores(batch_i, layer, kind), options);
}

Tensor Client::value_weighted_norms(Index batch_i, Index layer, const ReadOptions& options) {
  return read(Read::value_weighted_norms(batch_i, layer), options);
}

SaeFeatures Client::features(Index batch_i, Index k, const SaeOptions& asked,
                             const ReadOptions& options) {
  Parts came = read_parts(Read::features(batch_i, k, asked), options);
  return {.ids = take(came, "ids"),
          .activations = take(came, "activations"),
          .active = take(came, "active"),
          .error_norm = take(came, "error_norm"),
          .explained = take(came, "explained")};
}

Tensor Client::feature_activations(Index batch_i, std::vector<Index> feature_ids,
                                   const SaeOptions& asked, const ReadOptions& options) {
  return read(Read::feature_activations(batch_i, std::move(feature_ids), asked), options);
}

}  // namespace transparent_llm
