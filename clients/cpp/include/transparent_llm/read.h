// Reads: what can be asked of a run.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "transparent_llm/analysis_options.h"
#include "transparent_llm/dtype.h"
#include "transparent_llm/index.h"

namespace transparent_llm {

/// An argument that is no index: a flag, a number, the name of a choice as in "after_attn" (or its
/// number), or a list of integers.
using Parameter = std::variant<bool, Index, double, std::string, std::vector<Index>>;
/// By their names in analysis.proto. One that is not there is 0, false, empty, or the first choice.
using Parameters = std::map<std::string, Parameter, std::less<>>;

/// One value of a run: a method of `Client` with its arguments, for `Client::fetch` and
/// `Client::read_chunks`.
class Read {
 public:
  static Read tokens() { return {"tokens", {}}; }
  static Read logits() { return {"logits", {}}; }
  static Read residual_in(Index layer) { return {"residual_in", {layer}}; }
  static Read residual_after_attn(Index layer) { return {"residual_after_attn", {layer}}; }
  static Read residual_out(Index layer) { return {"residual_out", {layer}}; }
  static Read ffn_out(Index layer) { return {"ffn_out", {layer}}; }
  static Read decomposed_ffn_out(Index batch_i, Index layer, Index pos) {
    return {"decomposed_ffn_out", {batch_i, layer, pos}};
  }
  static Read neuron_activations(Index batch_i, Index layer, Index pos) {
    return {"neuron_activations", {batch_i, layer, pos}};
  }
  static Read attention_matrix(Index batch_i, Index layer, Index head) {
    return {"attention_matrix", {batch_i, layer, head}};
  }
  static Read attention_output(Index batch_i, Index layer, Index pos,
                               std::optional<Index> head = std::nullopt) {
    return {"attention_output", {batch_i, layer, pos, head}};
  }
  static Read decomposed_attn(Index batch_i, Index layer) {
    return {"decomposed_attn", {batch_i, layer}};
  }

  static Read layer_lens(Index batch_i, Index layer, const LayerLensOptions& asked = {});
  static Read token_logprobs(Index batch_i);
  static Read attn_contributions(Index batch_i, Index layer,
                                 ContributionNorm norm = ContributionNorm::kL1);
  static Read contribution_edges(Index batch_i, Index layer, const EdgeOptions& asked = {});
  static Read contribution_edges_to(Index batch_i, Index layer, const EdgeToOptions& asked = {});
  static Read neuron_contributions(Index batch_i, Index layer, Index pos, Index k,
                                   ContributionNorm norm = ContributionNorm::kL1);
  static Read logit_terms(Index batch_i, Index pos, Index token,
                          std::optional<Index> minus_token = std::nullopt);
  static Read logit_attribution(Index batch_i, Index layer, Index pos, Index token,
                                std::optional<Index> minus_token = std::nullopt);
  static Read source_attribution(Index batch_i, Index layer, Index pos, Index token,
                                 std::optional<Index> minus_token = std::nullopt);
  static Read neuron_attribution(Index batch_i, Index layer, Index pos, Index token, Index k,
                                 std::optional<Index> minus_token = std::nullopt);
  static Read attention_matrices(Index batch_i, Index layer);
  static Read head_scores(Index batch_i, Index layer,
                          HeadScoreKind kind = HeadScoreKind::kInduction);
  static Read value_weighted_norms(Index batch_i, Index layer);
  static Read features(Index batch_i, Index k, const SaeOptions& asked = {});
  static Read feature_activations(Index batch_i, std::vector<Index> feature_ids,
                                  const SaeOptions& asked = {});

  /// The read of a method that is known by name only, for example {"residual_in", {3}}.
  ///
  /// Throws InvalidRequestError for a name that is no method above, another number of indices, or a
  /// parameter that it has not. A head may be left out, and what is subtracted. Values of parameters
  /// are looked at when they are asked for.
  static Read named(std::string_view method, std::vector<std::optional<Index>> indices,
                    Parameters parameters = {});

  /// The method's name, for example "residual_in".
  std::string_view method() const noexcept { return method_; }
  /// The method's indices, in their order. Only a head may be absent, or what is subtracted.
  const std::vector<std::optional<Index>>& indices() const noexcept { return indices_; }
  /// Its other arguments.
  const Parameters& parameters() const noexcept { return parameters_; }

 private:
  Read(std::string_view method, std::vector<std::optional<Index>> indices,
       Parameters parameters = {})
      : method_(method), indices_(std::move(indices)), parameters_(std::move(parameters)) {}

  std::string_view method_;  // of a literal, or of the table
  std::vector<std::optional<Index>> indices_;
  Parameters parameters_;
};

/// What a read would bring, known before anything is computed or sent.
struct PlannedRead {
  /// Of the method; of a part "METHOD.PART".
  std::string name;
  /// Of the value. Of one of several tensors: those of the first of them, as `dims` and `dtype`.
  std::vector<std::size_t> shape;
  std::vector<std::string> dims;
  Dtype dtype = Dtype::kF32;
  /// Of the value, in the memory of whoever reads it.
  std::uint64_t n_bytes = 0;
  /// What is sent for it: less where the value is a product and its factors travel. Weights that a
  /// client fetches once and keeps, for `decomposed_ffn_out`, are not in it.
  std::uint64_t transfer_bytes = 0;
  /// The tensors that the value consists of, if those are several.
  std::vector<PlannedRead> parts = {};
};

}  // namespace transparent_llm
