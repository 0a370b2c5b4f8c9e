#include "analyses.h"

#include <functional>
#include <map>
#include <vector>

namespace driver {
namespace {

using namespace transparent_llm;

constexpr int kUnknown = 99;

/// Indices, and what stands in an object after them.
struct Arguments {
  explicit Arguments(const Json& args) {
    for (const Json& one : args) {
      if (one.is_object())
        named = one;
      else
        indices.push_back(one.is_null() ? std::nullopt : std::optional(one.get<Index>()));
    }
  }

  Index operator[](std::size_t place) const {
    return place < indices.size() ? indices[place].value_or(0) : 0;
  }
  template <class T>
  T value(const char* name) const {
    return named.contains(name) ? named.at(name).get<T>() : T();
  }
  std::optional<Index> index(const char* name) const {
    return named.contains(name) ? std::optional(named.at(name).get<Index>()) : std::nullopt;
  }
  /// A choice by its name, the first where there is none; one that is unknown to all for another.
  template <class Choice>
  Choice choice(const char* name, const std::vector<std::string>& names) const {
    if (!named.contains(name)) return static_cast<Choice>(1);
    for (std::size_t i = 0; i < names.size(); ++i)
      if (names[i] == named.at(name)) return static_cast<Choice>(i + 1);
    return static_cast<Choice>(kUnknown);
  }
  ResidualPoint point(const char* name) const {
    return choice<ResidualPoint>(name, {"out", "in", "after_attn"});
  }
  ContributionNorm norm() const { return choice<ContributionNorm>("norm", {"l1", "l2"}); }

  std::vector<std::optional<Index>> indices;
  Json named = Json::object();
};

Json parts(const Parts& parts) { return {{"parts", to_json(parts)}}; }
Json tensor(const Tensor& tensor) { return {{"tensor", to_json(tensor)}}; }

Json layer_lens(Client& llm, const Arguments& given, const ReadOptions& options) {
  const LayerLens got = llm.layer_lens(
      given[0], given[1],
      {.minus_layer = given.index("minus_layer"),
       .point = given.point("point"),
       .minus_point = given.point("minus_point"),
       .normalize = given.choice<Normalize>("normalize", {"own", "frozen", "none"}),
       .positions = given.value<std::vector<Index>>("positions"),
       .k = given.value<Index>("k"),
       .bottom_k = given.value<Index>("bottom_k"),
       .token_ids = given.value<std::vector<Index>>("token_ids"),
       .with_kl = given.value<bool>("with_kl")},
      options);
  Parts all{{"top_ids", got.top_ids},
            {"top_logits", got.top_logits},
            {"bottom_ids", got.bottom_ids},
            {"bottom_logits", got.bottom_logits},
            {"target_logits", got.target_logits},
            {"target_ranks", got.target_ranks},
            {"logsumexp", got.logsumexp},
            {"entropy", got.entropy}};
  if (got.kl) all.emplace("kl", *got.kl);
  return parts(all);
}

Json token_logprobs(Client& llm, const Arguments& given, const ReadOptions& options) {
  const TokenLogprobs got = llm.token_logprobs(given[0], options);
  return parts({{"logprobs", got.logprobs}, {"ranks", got.ranks}});
}

Json attn_contributions(Client& llm, const Arguments& given, const ReadOptions& options) {
  const AttnContributions got =
      llm.attn_contributions(given[0], given[1], given.norm(), options);
  return parts({{"heads", got.heads}, {"residual", got.residual}});
}

Json edges(const ContributionEdges& got) {
  return parts({{"attention", got.attention},
                {"attention_residual", got.attention_residual},
                {"ffn", got.ffn},
                {"ffn_residual", got.ffn_residual}});
}

Json contribution_edges(Client& llm, const Arguments& given, const ReadOptions& options) {
  return edges(llm.contribution_edges(given[0], given[1],
                                      {.threshold = given.value<double>("threshold"),
                                       .renormalize = given.value<bool>("renormalize"),
                                       .norm = given.norm()},
                                      options));
}

Json contribution_edges_to(Client& llm, const Arguments& given, const ReadOptions& options) {
  return edges(llm.contribution_edges_to(given[0], given[1],
                                         {.targets = given.value<std::vector<Index>>("targets"),
                                          .threshold = given.value<double>("threshold"),
                                          .renormalize = given.value<bool>("renormalize"),
                                          .norm = given.norm()},
                                         options));
}

Json neuron_contributions(Client& llm, const Arguments& given, const ReadOptions& options) {
  const NeuronContributions got = llm.neuron_contributions(
      given[0], given[1], given[2], given.value<Index>("k"), given.norm(), options);
  return parts({{"ids", got.ids}, {"values", got.values}, {"residual", got.residual}});
}

Json logit_terms(Client& llm, const Arguments& given, const ReadOptions& options) {
  const LogitTerms got =
      llm.logit_terms(given[0], given[1], given[2], given.index("minus_token"), options);
  return parts({{"logit", got.logit},
                {"embedding", got.embedding},
                {"layers", got.layers},
                {"norm_bias", got.norm_bias},
                {"unembed_bias", got.unembed_bias},
                {"scale", got.scale}});
}

Json logit_attribution(Client& llm, const Arguments& given, const ReadOptions& options) {
  const LogitAttribution got = llm.logit_attribution(given[0], given[1], given[2], given[3],
                                                     given.index("minus_token"), options);
  return parts({{"heads", got.heads},
                {"attn_bias", got.attn_bias},
                {"ffn", got.ffn},
                {"ffn_bias", got.ffn_bias}});
}

Json source_attribution(Client& llm, const Arguments& given, const ReadOptions& options) {
  return tensor(llm.source_attribution(given[0], given[1], given[2], given[3],
                                       given.index("minus_token"), options));
}

Json neuron_attribution(Client& llm, const Arguments& given, const ReadOptions& options) {
  const NeuronAttribution got =
      llm.neuron_attribution(given[0], given[1], given[2], given[3], given.value<Index>("k"),
                             given.index("minus_token"), options);
  return parts({{"ids", got.ids}, {"values", got.values}, {"rest", got.rest}});
}

Json attention_matrices(Client& llm, const Arguments& given, const ReadOptions& options) {
  return tensor(llm.attention_matrices(given[0], given[1], options));
}

Json head_scores(Client& llm, const Arguments& given, const ReadOptions& options) {
  const auto kind = given.choice<HeadScoreKind>(
      "kind", {"induction", "previous", "duplicate", "first", "self", "entropy"});
  return tensor(llm.head_scores(given[0], given[1], kind, options));
}

Json value_weighted_norms(Client& llm, const Arguments& given, const ReadOptions& options) {
  return tensor(llm.value_weighted_norms(given[0], given[1], options));
}

SaeOptions sae_of(const Arguments& given) {
  return {.sae = given.value<std::string>("sae"),
          .positions = given.value<std::vector<Index>>("positions")};
}

Json features(Client& llm, const Arguments& given, const ReadOptions& options) {
  const SaeFeatures got = llm.features(given[0], given.value<Index>("k"), sae_of(given), options);
  return parts({{"ids", got.ids},
                {"activations", got.activations},
                {"active", got.active},
                {"error_norm", got.error_norm},
                {"explained", got.explained}});
}

Json feature_activations(Client& llm, const Arguments& given, const ReadOptions& options) {
  return tensor(llm.feature_activations(given[0], given.value<std::vector<Index>>("feature_ids"),
                                        sae_of(given), options));
}

Json head_weights(Client& llm, const Arguments& given, const ReadOptions& options) {
  const HeadWeights got = llm.head_weights(given[0], given[1], options);
  return parts({{"q", got.q}, {"k", got.k}, {"v", got.v}, {"o", got.o}});
}

Json composition_scores(Client& llm, const Arguments& given, const ReadOptions& options) {
  const auto kind = given.named.contains("kind")
                        ? given.choice<CompositionKind>("kind", {"q", "k", "v"})
                        : CompositionKind::kK;
  return tensor(llm.composition_scores(kind, options));
}

Json copying_scores(Client& llm, const Arguments& given, const ReadOptions& options) {
  const auto circuit = given.named.contains("circuit")
                           ? given.choice<HeadCircuit>("circuit", {"ov", "qk"})
                           : HeadCircuit::kOV;
  return tensor(llm.copying_scores(circuit, options));
}

Parameter parameter_from(const std::string& name, const Json& json) {
  if (json.is_string()) return json.get<std::string>();
  if (json.is_boolean()) return json.get<bool>();
  if (json.is_array()) return json.get<std::vector<Index>>();
  if (name == "threshold") return json.get<double>();
  return json.get<Index>();
}

}  // namespace

std::optional<Json> analysis(Client& llm, const std::string& method, const Json& args,
                             const ReadOptions& options) {
  using Answer = Json (*)(Client&, const Arguments&, const ReadOptions&);
  static const std::map<std::string, Answer> kAnalyses{
      {"layer_lens", layer_lens},
      {"token_logprobs", token_logprobs},
      {"attn_contributions", attn_contributions},
      {"contribution_edges", contribution_edges},
      {"contribution_edges_to", contribution_edges_to},
      {"neuron_contributions", neuron_contributions},
      {"logit_terms", logit_terms},
      {"logit_attribution", logit_attribution},
      {"source_attribution", source_attribution},
      {"neuron_attribution", neuron_attribution},
      {"attention_matrices", attention_matrices},
      {"head_scores", head_scores},
      {"value_weighted_norms", value_weighted_norms},
      {"features", features},
      {"feature_activations", feature_activations},
      {"head_weights", head_weights},
      {"composition_scores", composition_scores},
      {"copying_scores", copying_scores}};
  const auto found = kAnalyses.find(method);
  if (found == kAnalyses.end()) return std::nullopt;
  return found->second(llm, Arguments(args), options);
}

Read read_from(const std::string& method, const Json& args) {
  Arguments given(args);
  Parameters parameters;
  for (const auto& [name, value] : given.named.items()) {
    if (name.starts_with("minus_") && name != "minus_point")
      given.indices.push_back(value.get<Index>());
    else
      parameters.emplace(name, parameter_from(name, value));
  }
  return Read::named(method, std::move(given.indices), std::move(parameters));
}

Json to_json(const Parts& parts) {
  Json all = Json::object();
  for (const auto& [name, tensor] : parts) all[name] = to_json(tensor);
  return all;
}

}  // namespace driver
