#include "gradients.h"

#include <map>
#include <stdexcept>
#include <string>

#include "analyses.h"
#include "edits.h"

namespace driver {
namespace {

using namespace transparent_llm;

using Indices = std::vector<Index>;

Indices one_or_more(const Json& given) {
  return given.is_array() ? given.get<Indices>() : Indices{given.get<Index>()};
}

Indices list(const Json& json, const char* name) {
  const Json given = json.value(name, Json());
  return given.is_null() ? Indices() : given.get<Indices>();
}

/// The name of a client; empty if there is none.
std::string name_in(const Json& json, const char* name) {
  const Json given = json.value(name, Json());
  return given.is_null() ? "" : given.get<std::string>();
}

Metric measured(const Json& json, Clients& clients) {
  const auto measure = json.at("measure").get<std::string>();
  if (measure == "loss") return Metric::loss();
  if (measure == "entropy") return Metric::entropy();
  if (measure == "kl") {
    const std::string run = name_in(json, "run");
    return run.empty() ? Metric::kl() : Metric::kl(clients.at(run));
  }
  if (measure == "projection")
    return Metric::projection(site_from(json.at("site")), vector_from(json.at("direction"), clients));
  const Indices tokens = one_or_more(json.at("token"));
  if (measure == "logit") return Metric::logit(tokens);
  if (measure == "logprob") return Metric::logprob(tokens);
  if (measure == "prob") return Metric::prob(tokens);
  throw InvalidRequestError("there is no measure " + measure);
}

Metric metric_from(const Json& json, Clients& clients) {
  Metric made = measured(json, clients);
  if (const Json minus = json.value("minus", Json()); !minus.is_null())
    made = made.minus(one_or_more(minus));
  if (const Json pos = json.value("pos", Json()); !pos.is_null()) made = made.at(pos.get<Index>());
  return made;
}

SiteGradient gradient_from(const Json& json, Clients& clients) {
  const Site site = site_from(json.at("site"));
  const std::string form = json.value("form", "gradient");
  const std::string run = name_in(json, "run");
  if (run.empty() != (form != "times_difference"))  // neither compiles with this client's API
    throw InvalidRequestError("a difference, and nothing else, takes from another client");
  if (form == "times_difference")
    return SiteGradient::times_difference(site, clients.at(run), list(json, "source_rows"));
  if (form == "times_activation") return SiteGradient::times_activation(site);
  if (form == "norm") return SiteGradient::norm(site);
  if (form != "gradient") throw InvalidRequestError("there is no form " + form);
  return SiteGradient::by(site);
}

GradientPath path_from(const Json& json, Clients& clients) {
  const Index steps = json.value("steps", Index{50});
  const auto begun = [&] {
    if (json.value("zero", false)) return GradientPath::from_zero(steps);
    if (json.contains("token_id"))
      return GradientPath::from_token(json.at("token_id").get<Index>(), steps);
    return GradientPath::from_run(clients.at(json.at("run").get<std::string>()), steps);
  };
  const GradientPath path = begun();
  return json.contains("site") ? path.at(site_from(json.at("site"))) : path;
}

std::vector<FrozenPart> frozen_from(const Json& request) {
  static const std::map<std::string, FrozenPart> kParts{{"patterns", FrozenPart::kPatterns},
                                                        {"norm_scales", FrozenPart::kNormScales},
                                                        {"attention", FrozenPart::kAttention},
                                                        {"neurons", FrozenPart::kNeurons}};
  std::vector<FrozenPart> frozen;
  for (const Json& name : request.value("frozen", Json::array())) {
    const auto found = kParts.find(name.get<std::string>());
    frozen.push_back(found == kParts.end() ? FrozenPart{} : found->second);
  }
  return frozen;
}

Json edges_of(Client& llm, const Metric& metric, const Json& request, Clients& clients) {
  const Json& edges = request.at("edges");
  const EdgeAttribution got =
      llm.edge_attribution(metric, clients.at(edges.at("run").get<std::string>()),
                           {.steps = edges.value("steps", Index{0}),
                            .rows = list(request, "rows"),
                            .source_rows = list(edges, "source_rows"),
                            .frozen = frozen_from(request)});
  return to_json(Parts{{"metric", got.metric},
                       {"query", got.query},
                       {"key", got.key},
                       {"value", got.value},
                       {"ffn", got.ffn},
                       {"logits", got.logits}});
}

/// A site as tensors of gradients are named.
std::string name_of(const Json& site) {
  std::string name = site.at(0).get<std::string>() + "(" + site.at(1).dump();
  if (site.size() > 2 && site.at(2).is_number()) name += ", " + site.at(2).dump();
  if (site.size() > 2 && site.at(2).is_array()) {
    std::string listed;
    for (const Json& neuron : site.at(2)) listed += (listed.empty() ? "" : ", ") + neuron.dump();
    name += ", [" + listed + "]";
  }
  return name + ")";
}

Json by_sites(Client& llm, const Metric& metric, const Json& request, Clients& clients,
              const GradientOptions& options) {
  std::vector<SiteGradient> sites;
  for (const Json& site : request.value("sites", Json::array()))
    sites.push_back(gradient_from(site, clients));
  const Gradients got = llm.gradients(metric, sites, options);
  Parts parts{{"metric", got.metric}};
  for (std::size_t i = 0; i < sites.size(); ++i)
    parts.insert_or_assign(name_of(request.at("sites").at(i).at("site")), got.sites[i]);
  return to_json(parts);
}

}  // namespace

Json differentiated(Client& llm, const Json& request, Clients& clients) {
  const Metric metric = metric_from(request.at("metric"), clients);
  const Json none;
  const Json path = request.value("path", none);
  const Json edges = request.value("edges", none);
  const bool has_sites = !request.value("sites", none).is_null();
  const auto edits = edits_from(request.value("edits", Json::array()), clients);
  if (has_sites + !path.is_null() + !edges.is_null() > 1 || (!edges.is_null() && !edits.empty()))
    throw InvalidRequestError("sites, a path and edges are of three methods, edges without edits");
  if (!edges.is_null()) return edges_of(llm, metric, request, clients);
  const GradientOptions options{
      .rows = list(request, "rows"), .frozen = frozen_from(request), .edits = edits};
  if (path.is_null()) return by_sites(llm, metric, request, clients, options);
  const IntegratedGradients got =
      llm.integrated_gradients(metric, path_from(path, clients), options);
  return to_json(Parts{{"metric", got.metric},
                       {"baseline_metric", got.baseline_metric},
                       {"delta", got.delta},
                       {"integrated_gradients", got.values}});
}

Json swept(Client& llm, const Json& request, Clients& clients) {
  std::vector<SweepCell> cells;
  for (const Json& cell : request.at("cells")) {
    const auto index = [&](const char* name) {
      return cell.contains(name) ? std::optional(cell.at(name).get<Index>()) : std::nullopt;
    };
    cells.push_back({.layer = index("layer"),
                     .head = index("head"),
                     .neurons = list(cell, "neurons"),
                     .positions = list(cell, "positions"),
                     .source_row = index("source_row")});
  }
  std::vector<Metric> metrics;
  for (const Json& metric : request.at("metrics")) metrics.push_back(metric_from(metric, clients));
  const Swept got = llm.sweep(edits_from(request.at("templates"), clients), cells, metrics,
                              {.rows = list(request, "rows"),
                               .before = edits_from(request.value("before", Json::array()), clients)});
  return to_json(Parts{{"baselines", got.baselines}, {"values", got.values}});
}

Json compared(Client& llm, const Json& request, Clients& clients) {
  CompareOptions options;
  if (const Json from = request.value("from_pos", Json()); !from.is_null())
    options.from_pos = from.get<Index>();
  Json rows = Json::array();
  for (const RowComparison& row :
       llm.compare(clients.at(request.at("other").get<std::string>()), options)) {
    rows.push_back({{"kl", row.kl},
                    {"top_token", row.top_token},
                    {"top_string", row.top_string},
                    {"other_top_token", row.other_top_token},
                    {"other_top_string", row.other_top_string},
                    {"kl_by_pos", row.kl_by_pos}});
  }
  return rows;
}

}  // namespace driver
