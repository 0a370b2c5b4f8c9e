// The methods of Client that read weights of attention heads, which need no run.

#include <optional>
#include <set>
#include <utility>

#include "client_impl.h"
#include "method_table.h"
#include "slices.h"

namespace transparent_llm {

using internal::CallTerms;
using internal::Expectation;
using internal::Method;
using internal::NamedTensor;

namespace {

/// As long as the axes of the model are, where that is known.
internal::Lengths lengths_of(const std::optional<ModelDescription>& model) {
  if (!model) return {};
  return {{"d_model", model->info.d_model},
          {"layer", model->info.n_layers},
          {"later_layer", model->info.n_layers},
          {"head", model->info.n_heads},
          {"later_head", model->info.n_heads}};
}

/// Throws InternalError for weights that are not those of one head: no description says how wide it
/// is.
void require_one_width(const Parts& weights) {
  std::set<std::size_t> widths;
  for (const auto& [name, tensor] : weights)
    widths.insert(tensor.shape()[tensor.dims()[0] == "d_head" ? 0 : 1]);
  if (widths.size() > 1)
    throw InternalError("the server sent weights of one head that are not of one width");
}

}  // namespace

template <class Request>
Parts Client::Impl::of_weights(const char* name, Request request, const ReadOptions& options,
                               const char* feature) {
  internal::require_valid(options);
  const Method& method = internal::method_named(name);
  internal::require_axes(method.name, method.axes(), options);
  const CallTerms of_call = terms(call_options(options));
  require_offered(feature, "weights of heads", of_call);
  const auto described =
      internal::Descriptions::served(connection(), model(), digest(), of_call);
  request.set_model(model());
  request.set_model_digest(digest().empty() && described ? described->digest : digest());
  internal::fill(*request.mutable_options(), method.axes(), options, !method.dtype.has_value());
  const auto call = internal::stream_call(method.name, std::move(request));
  const internal::Expected expected(
      {{.method = &method, .options = options, .lengths = lengths_of(described)}});
  const Method* const wanted[] = {&method};
  return std::move(internal::grouped(wanted, internal::collected(connection(), call, of_call,
                                                                 expected, options.on_progress))[0]);
}

HeadWeights Client::head_weights(Index layer, Index head, const ReadOptions& options) {
  v1::HeadWeightsRequest request;
  request.set_layer(internal::to_int32("layer", layer));
  request.set_head(internal::to_int32("head", head));
  Parts came = impl().of_weights("head_weights", std::move(request), options);
  require_one_width(came);
  return {.q = std::move(came.at("q")),
          .k = std::move(came.at("k")),
          .v = std::move(came.at("v")),
          .o = std::move(came.at("o"))};
}

Tensor Client::composition_scores(CompositionKind kind, const ReadOptions& options) {
  v1::CompositionScoresRequest request;
  request.set_kind(static_cast<v1::CompositionKind>(kind));
  return std::move(impl().of_weights("composition_scores", std::move(request), options).at(""));
}

Tensor Client::copying_scores(HeadCircuit circuit, const ReadOptions& options) {
  v1::CopyingScoresRequest request;
  request.set_circuit(static_cast<v1::HeadCircuit>(circuit));
  // An older server would answer for the other circuit.
  const char* const feature = circuit == HeadCircuit::kQK ? "matching_scores" : "circuits";
  return std::move(impl().of_weights("copying_scores", std::move(request), options, feature).at(""));
}

}  // namespace transparent_llm
