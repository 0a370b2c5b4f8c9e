#include "transparent_llm/read.h"

#include <string>
#include <utility>

#include "legible.h"
#include "method_table.h"
#include "transparent_llm/errors.h"

namespace transparent_llm {
namespace {

template <class Choice>
Index number_of(Choice choice) {
  return static_cast<Index>(choice);
}

}  // namespace

Read Read::layer_lens(Index batch_i, Index layer, const LayerLensOptions& asked) {
  return {"layer_lens",
          {batch_i, layer, asked.minus_layer},
          {{"point", number_of(asked.point)},
           {"minus_point", number_of(asked.minus_point)},
           {"normalize", number_of(asked.normalize)},
           {"positions", asked.positions},
           {"k", asked.k},
           {"bottom_k", asked.bottom_k},
           {"token_ids", asked.token_ids},
           {"with_kl", asked.with_kl}}};
}

Read Read::token_logprobs(Index batch_i) { return {"token_logprobs", {batch_i}}; }

Read Read::attn_contributions(Index batch_i, Index layer, ContributionNorm norm) {
  return {"attn_contributions", {batch_i, layer}, {{"norm", number_of(norm)}}};
}

Read Read::contribution_edges(Index batch_i, Index layer, const EdgeOptions& asked) {
  return {"contribution_edges",
          {batch_i, layer},
          {{"threshold", asked.threshold},
           {"renormalize", asked.renormalize},
           {"norm", number_of(asked.norm)}}};
}

Read Read::contribution_edges_to(Index batch_i, Index layer, const EdgeToOptions& asked) {
  return {"contribution_edges_to",
          {batch_i, layer},
          {{"targets", asked.targets},
           {"threshold", asked.threshold},
           {"renormalize", asked.renormalize},
           {"norm", number_of(asked.norm)}}};
}

Read Read::neuron_contributions(Index batch_i, Index layer, Index pos, Index k,
                                ContributionNorm norm) {
  return {"neuron_contributions", {batch_i, layer, pos}, {{"k", k}, {"norm", number_of(norm)}}};
}

Read Read::logit_terms(Index batch_i, Index pos, Index token, std::optional<Index> minus_token) {
  return {"logit_terms", {batch_i, pos, token, minus_token}};
}

Read Read::logit_attribution(Index batch_i, Index layer, Index pos, Index token,
                             std::optional<Index> minus_token) {
  return {"logit_attribution", {batch_i, layer, pos, token, minus_token}};
}

Read Read::source_attribution(Index batch_i, Index layer, Index pos, Index token,
                              std::optional<Index> minus_token) {
  return {"source_attribution", {batch_i, layer, pos, token, minus_token}};
}

Read Read::neuron_attribution(Index batch_i, Index layer, Index pos, Index token, Index k,
                              std::optional<Index> minus_token) {
  return {"neuron_attribution", {batch_i, layer, pos, token, minus_token}, {{"k", k}}};
}

Read Read::attention_matrices(Index batch_i, Index layer) {
  return {"attention_matrices", {batch_i, layer}};
}

Read Read::head_scores(Index batch_i, Index layer, HeadScoreKind kind) {
  return {"head_scores", {batch_i, layer}, {{"kind", number_of(kind)}}};
}

Read Read::value_weighted_norms(Index batch_i, Index layer) {
  return {"value_weighted_norms", {batch_i, layer}};
}

Read Read::features(Index batch_i, Index k, const SaeOptions& asked) {
  return {"features", {batch_i}, {{"sae", asked.sae}, {"positions", asked.positions}, {"k", k}}};
}

Read Read::feature_activations(Index batch_i, std::vector<Index> feature_ids,
                               const SaeOptions& asked) {
  return {"feature_activations",
          {batch_i},
          {{"sae", asked.sae},
           {"feature_ids", std::move(feature_ids)},
           {"positions", asked.positions}}};
}

Read Read::named(std::string_view method, std::vector<std::optional<Index>> indices,
                 Parameters parameters) {
  const internal::Method* row = internal::find_method(method);
  if (row == nullptr || !row->of_run) {
    std::string known;
    for (const internal::Method& one : internal::methods())
      if (one.of_run) known += (known.empty() ? "" : ", ") + one.name;
    throw InvalidRequestError("there is no '" + std::string(method) +
                              "' to read of a run; known are " + known);
  }
  if (indices.size() < row->least_arguments || indices.size() > row->arguments.size()) {
    throw InvalidRequestError(row->name + " takes " + std::to_string(row->arguments.size()) +
                              " arguments, got " + std::to_string(indices.size()));
  }
  for (const auto& [name, value] : parameters) {
    if (row->parameter(name) == nullptr)
      throw InvalidRequestError(
          row->name + " has no parameter " + internal::in_quotes(name),
          {.reason = {}, .metadata = {{"argument", name}}, .retry_after = {}});
  }
  indices.resize(row->arguments.size());
  return Read(row->name, std::move(indices), std::move(parameters));
}

}  // namespace transparent_llm
