#include "edits.h"

#include <limits>
#include <optional>
#include <stdexcept>
#include <string>

namespace driver {
namespace {

using namespace transparent_llm;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

using Indices = std::vector<Index>;

/// What does not compile with this client's API is refused as the others refuse it.
Selection selection_from(const Json& edit) {
  const Json& positions = edit.at("positions");
  const Json& rows = edit.at("rows");
  if (positions.is_string() && positions != "all" && positions != "last")
    throw InvalidRequestError("positions is " + positions.dump());
  if (rows.is_string() && rows != "all") throw InvalidRequestError("rows is " + rows.dump());
  const Selection made = positions == "all"    ? Selection::all()
                         : positions == "last" ? Selection::last()
                                               : Selection::at(positions.get<Indices>());
  return rows.is_string() ? made : made.of_rows(rows.get<Indices>());
}

Vector literal_from(const Json& json) {
  if (json.is_array()) return Vector::literal(json.get<std::vector<float>>());
  return Vector::literal(tensor_from(json));
}

/// A number, or what is meant where there is none.
double number(const Json& edit, const char* name, double absent) {
  const auto found = edit.find(name);
  return found == edit.end() || found->is_null() ? absent : found->get<double>();
}

std::optional<Indices> list(const Json& edit, const char* name) {
  const auto found = edit.find(name);
  return found == edit.end() || found->is_null() ? std::nullopt
                                                 : std::optional(found->get<Indices>());
}

Edit edit_from(const Json& edit, Clients& clients) {
  const auto op = edit.at("op").get<std::string>();
  const Site site = site_from(edit.at("site"));
  const Selection where = selection_from(edit);
  const auto vector = [&](const char* name) { return vector_from(edit.at(name), clients); };
  const auto source = [&]() -> const Client& {
    return clients.at(edit.at("source").get<std::string>());
  };
  if (op == "zero") return Edit::zero(site, where);
  if (op == "scale") return Edit::scale(site, edit.at("factor").get<double>(), where);
  if (op == "add") {
    const double factor = number(edit, "factor", 1);
    return edit.value("relative", false) ? Edit::add_relative(site, vector("vector"), factor, where)
                                         : Edit::add(site, vector("vector"), factor, where);
  }
  if (op == "set") return Edit::set(site, vector("vector"), where);
  if (op == "mean") return Edit::mean(site, source(), where);
  if (op == "patch") {
    return Edit::patch(
        site, source(), where,
        {.positions = list(edit, "source_positions"), .rows = list(edit, "source_rows")});
  }
  if (op == "project")
    return Edit::project(site, vector("vector"), number(edit, "factor", 0), where);
  if (op == "clamp") {
    return Edit::clamp(site, vector("vector"), number(edit, "least", -kInfinity),
                       number(edit, "most", kInfinity), where);
  }
  if (op == "clamp_feature") {
    return Edit::clamp_feature(site, edit.at("sae").get<std::string>(),
                               edit.at("feature").get<Index>(), number(edit, "least", -kInfinity),
                               number(edit, "most", kInfinity), where);
  }
  if (op == "swap") return Edit::swap(site, vector("origin"), vector("target"), where);
  if (op != "noise") throw std::invalid_argument("no operation: " + op);
  return Edit::noise(site, edit.at("sd").get<double>(), edit.at("seed").get<std::int64_t>(),
                     where);
}

}  // namespace

Site site_from(const Json& json) {
  const auto name = json.at(0).get<std::string>();
  const auto layer = json.at(1).get<Index>();
  const bool is_whole = json.size() == 2;
  const auto of_head = [&] { return json.at(2).get<Index>(); };
  if (name == "residual_in") return Site::residual_in(layer);
  if (name == "residual_after_attn") return Site::residual_after_attn(layer);
  if (name == "residual_out") return Site::residual_out(layer);
  if (name == "attn_out") return Site::attn_out(layer);
  if (name == "ffn_out") return Site::ffn_out(layer);
  if (name == "head") return is_whole ? Site::all_heads(layer) : Site::head(layer, of_head());
  if (name == "pattern") return is_whole ? Site::all_patterns(layer) : Site::pattern(layer, of_head());
  if (name == "query") return is_whole ? Site::all_queries(layer) : Site::query(layer, of_head());
  if (name == "key") return is_whole ? Site::all_keys(layer) : Site::key(layer, of_head());
  if (name == "value") return is_whole ? Site::all_values(layer) : Site::value(layer, of_head());
  if (name != "neurons") throw std::invalid_argument("no site: " + name);
  return is_whole ? Site::all_neurons(layer) : Site::neurons(layer, json.at(2).get<Indices>());
}

Vector vector_from(const Json& json, Clients& clients) {
  const std::string kind = json.items().begin().key();
  const Json& given = json.at(kind);
  if (kind == "literal") return literal_from(given);
  if (kind == "value_of") {
    return Vector::value_of(site_from(given.at("site")),
                            clients.at(given.at("source").get<std::string>()),
                            given.at("row").get<Index>(), given.at("pos").get<Index>());
  }
  if (kind == "difference")
    return vector_from(given.at(0), clients) - vector_from(given.at(1), clients);
  if (kind == "unembedding") return Vector::unembedding(given.get<Index>());
  if (kind == "neuron_output")
    return Vector::neuron_output(given.at(0).get<Index>(), given.at(1).get<Index>());
  if (kind == "sae_feature")
    return Vector::sae_feature(given.at(0).get<std::string>(), given.at(1).get<Index>());
  throw std::invalid_argument("no vector: " + kind);
}

std::vector<Edit> edits_from(const Json& edits, Clients& clients) {
  std::vector<Edit> made;
  for (const Json& edit : edits) made.push_back(edit_from(edit, clients));
  return made;
}

Json to_json(const std::vector<EditEffect>& effects) {
  Json listed = Json::array();
  for (const EditEffect& effect : effects) {
    listed.push_back({{"edit", effect.edit},
                      {"selected", effect.selected},
                      {"changed", effect.changed},
                      {"delta_norm", effect.delta_norm},
                      {"norm", effect.norm},
                      {"max_delta", effect.max_delta}});
  }
  return listed;
}

}  // namespace driver
