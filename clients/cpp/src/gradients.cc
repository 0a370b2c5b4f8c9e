// The methods of Client that differentiate.

#include "transparent_llm/gradients.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "client_impl.h"
#include "gradient_parts.h"
#include "gradients_expected.h"
#include "methods.h"
#include "metric_parts.h"

namespace transparent_llm {

using internal::CallTerms;
using internal::CurrentRun;
using internal::Sources;

namespace {

constexpr std::size_t kMostSites = 4096, kMostSources = 16;
constexpr Index kMostEdgeSteps = 1000;

/// A request without its run, and the runs that it takes from.
struct Begun {
  v1::GradientsRequest request;
  Sources sources = {};
};

/// What all of them have; `Options` are those of gradients, or of edges.
template <class Options>
Begun begun(const Metric& metric, const Options& options) {
  Begun made;
  *made.request.mutable_metric() = metric.parts().message;
  internal::add_sources(made.sources, metric.parts().sources);
  internal::add_indices(*made.request.mutable_rows(), "batch", options.rows);
  std::set<FrozenPart> seen;
  for (const FrozenPart part : options.frozen) {
    const int number = static_cast<int>(part);
    if (!v1::FrozenPart_IsValid(number) || number == 0 || !seen.insert(part).second)
      throw InvalidRequestError("frozen has part " + std::to_string(number) +
                                ", which there is not, or twice");
    made.request.add_frozen(static_cast<v1::FrozenPart>(number));
  }
  return made;
}

template <class Options>
ReadOptions read_options(const Options& options) {
  return {.timeout = options.timeout,
          .stop_token = options.stop_token,
          .on_progress = options.on_progress};
}

void add_edits(Begun& made, const std::vector<Edit>& edits) {
  internal::add_sources(made.sources, internal::add_edits(*made.request.mutable_edits(), edits));
}

/// Receivers of one kind, of so many layers and perhaps heads.
std::vector<std::string> receivers(const std::string& kind, const std::vector<std::size_t>& shape) {
  if (shape.size() == 2) return {kind};
  std::vector<std::string> names;
  for (std::size_t layer = 0; layer < shape[2]; ++layer) {
    const std::string of_layer = kind + "(" + std::to_string(layer);
    if (shape.size() == 3) names.push_back(of_layer + ")");
    for (std::size_t head = 0; shape.size() == 4 && head < shape[3]; ++head)
      names.push_back(of_layer + ", " + std::to_string(head) + ")");
  }
  return names;
}

std::vector<std::string> senders(std::size_t n_layers, std::size_t n_heads) {
  std::vector<std::string> names{"residual_in(0)"};
  for (std::size_t layer = 0; layer < n_layers; ++layer) {
    for (std::size_t head = 0; head < n_heads; ++head)
      names.push_back("head(" + std::to_string(layer) + ", " + std::to_string(head) + ")");
    names.push_back("ffn_out(" + std::to_string(layer) + ")");
  }
  return names;
}

}  // namespace

std::vector<Tensor> Client::Impl::differentiated(v1::GradientsRequest request,
                                                 const Sources& sources,
                                                 const ReadOptions& options) {
  return of_run(options, [&](const CurrentRun& run, const CallTerms& terms) {
    require_offered("gradients", "gradients", terms);
    request.set_run_id(run.run_id);
    const internal::ExpectedGradients expected(
        request, run,
        shared().descriptions.with_neuron_outputs(connection(), run.model_digest, terms));
    return bringing(sources, terms, [&] {
      const auto call = internal::stream_call("gradients", request);
      return expected.whole(
          internal::collected(connection(), call, terms, expected, options.on_progress));
    });
  });
}

Gradients Client::gradients(const Metric& metric, const std::vector<SiteGradient>& sites,
                            const GradientOptions& options) {
  if (sites.empty()) throw InvalidRequestError("gradients are by some sites: name at least one");
  internal::require_few("sites of gradients", sites.size(), kMostSites);
  Begun made = begun(metric, options);
  add_edits(made, options.edits);
  Sources others;
  for (const SiteGradient& site : sites) {
    *made.request.add_sites() = site.parts().message;
    internal::add_sources(others, site.parts().sources);
  }
  internal::require_few("other runs of gradients", others.size(), kMostSources);
  internal::add_sources(made.sources, others);
  std::vector<Tensor> came =
      impl().differentiated(std::move(made.request), made.sources, read_options(options));
  Gradients found{.metric = std::move(came.front()), .sites = {}};
  found.sites.assign(std::make_move_iterator(came.begin() + 1),
                     std::make_move_iterator(came.end()));
  return found;
}

IntegratedGradients Client::integrated_gradients(const Metric& metric, const GradientPath& path,
                                                 const GradientOptions& options) {
  Begun made = begun(metric, options);
  add_edits(made, options.edits);
  *made.request.mutable_path() = path.parts().message;
  internal::add_sources(made.sources, path.parts().sources);
  std::vector<Tensor> came =
      impl().differentiated(std::move(made.request), made.sources, read_options(options));
  return {.metric = std::move(came[0]),
          .baseline_metric = std::move(came[1]),
          .delta = std::move(came[2]),
          .values = std::move(came[3])};
}

EdgeAttribution Client::edge_attribution(const Metric& metric, const Client& source,
                                         const EdgeAttributionOptions& options) {
  if (metric.parts().message.kind() == v1::METRIC_KIND_PROJECTION)
    throw InvalidRequestError("edges are of a metric of logits, not of a projection");
  if (options.steps < 0 || options.steps > kMostEdgeSteps) {
    throw InvalidRequestError("edges have 0 to " + std::to_string(kMostEdgeSteps) +
                              " steps, got " + std::to_string(options.steps));
  }
  Begun made = begun(metric, options);
  const auto other = source.current_run();
  v1::GradientEdges& edges = *made.request.mutable_edges();
  edges.set_run_id(other->run_id);
  edges.set_steps(static_cast<std::uint32_t>(options.steps));
  internal::add_indices(*edges.mutable_source_rows(), "batch", options.source_rows);
  internal::add_sources(made.sources, {other});
  std::vector<Tensor> came =
      impl().differentiated(std::move(made.request), made.sources, read_options(options));
  return {.metric = std::move(came[0]),
          .query = std::move(came[1]),
          .key = std::move(came[2]),
          .value = std::move(came[3]),
          .ffn = std::move(came[4]),
          .logits = std::move(came[5])};
}

std::vector<ScoredEdge> EdgeAttribution::top(std::size_t row, std::size_t count) const {
  const std::size_t batch = metric.shape()[0];
  if (row >= batch) {
    throw IndexOutOfRangeError(
        "row " + std::to_string(row) + " is out of range: there are " + std::to_string(batch),
        {.reason = {},
         .metadata = {{"axis", "batch"},
                      {"size", std::to_string(batch)},
                      {"got", std::to_string(row)}},
         .retry_after = {}});
  }
  if (count == 0) throw InvalidRequestError("the 0 largest edges are none: ask for at least 1");
  const std::vector<std::string> from = senders(query.shape()[2], query.shape()[3]);
  std::vector<ScoredEdge> all;
  const std::pair<const char*, const Tensor*> kinds[] = {
      {"query", &query}, {"key", &key}, {"value", &value}, {"ffn", &ffn}, {"logits", &logits}};
  for (const auto& [kind, scores] : kinds) {
    const std::vector<std::string> to = receivers(kind, scores->shape());
    const auto of_row = scores->as<float>().subspan(row * from.size() * to.size(),
                                                    from.size() * to.size());
    for (std::size_t i = 0; i < of_row.size(); ++i)
      all.push_back({from[i / to.size()], to[i % to.size()], of_row[i]});
  }
  std::stable_sort(all.begin(), all.end(), [](const ScoredEdge& one, const ScoredEdge& other) {
    return std::abs(one.score) > std::abs(other.score);
  });
  all.resize(std::min(count, all.size()));
  return all;
}

}  // namespace transparent_llm
