#include "descriptions.h"

#include <algorithm>
#include <utility>

#include "digest.h"
#include "wire_dtype.h"

namespace transparent_llm::internal {
namespace {

ModelState state_of(v1::ModelState wire) {
  switch (wire) {
    case v1::MODEL_STATE_LOADING:
      return ModelState::kLoading;
    case v1::MODEL_STATE_UNLOADED:
      return ModelState::kUnloaded;
    case v1::MODEL_STATE_FAILED:
      return ModelState::kFailed;
    default:
      return ModelState::kLoaded;  // a server that does not know states has loaded what it serves
  }
}

ModelDescription description_of(const v1::ModelDescription& wire) {
  ModelDescription model{
      .info = model_info_of(wire.info()),
      .digest = wire.digest(),
      .architecture = wire.architecture(),
      .dtype = from_wire(wire.dtype()),
      .device = wire.device(),
      .n_ctx = wire.n_ctx(),
      .d_ffn = {wire.d_ffn().begin(), wire.d_ffn().end()},
      .prepends_bos = wire.prepends_bos(),
      .pad_token_id = wire.pad_token_id(),
      .parity = {},
      .unsupported = {},
      .conventions = {wire.conventions().begin(), wire.conventions().end()},
      .run_bytes_per_position = wire.run_bytes_per_position(),
      .run_bytes_per_position_pair = wire.run_bytes_per_position_pair(),
      .state = state_of(wire.state()),
      .aliases = {wire.aliases().begin(), wire.aliases().end()},
      .detail = wire.detail(),
      .revision = wire.revision(),
      .quantization = wire.quantization(),
      .devices = {wire.devices().begin(), wire.devices().end()},
      .weight_bytes = wire.weight_bytes(),
      .on_demand = wire.on_demand(),
      .engine = wire.engine(),
  };
  for (const auto& check : wire.parity()) {
    model.parity.push_back({check.name(), check.max_abs_error(), check.tolerance()});
  }
  for (const auto& value : wire.unsupported()) model.unsupported[value.method()] = value.why();
  return model;
}

Limits limits_of(const v1::Limits& wire) {
  return {
      .max_tokens_per_run = wire.max_tokens_per_run(),
      .max_sentences_per_run = wire.max_sentences_per_run(),
      .run_store_bytes = wire.run_store_bytes(),
      .run_ttl_seconds = wire.run_ttl_seconds(),
      .max_chunk_bytes = wire.max_chunk_bytes(),
      .queue_length = wire.queue_length(),
      .max_read_bytes = wire.max_read_bytes(),
      .run_bytes_per_owner = wire.run_bytes_per_owner(),
      .max_streams = wire.max_streams(),
      .max_streams_per_owner = wire.max_streams_per_owner(),
      .model_bytes = wire.model_bytes(),
      .max_sweep_cells = wire.max_sweep_cells(),
      .max_sweep_positions = wire.max_sweep_positions(),
  };
}

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// A server that says to be another model at each run must not fill the memory.
constexpr std::size_t kMostModels = 64;

}  // namespace

ModelInfo model_info_of(const v1::ModelInfo& wire) {
  return {
      .name = wire.name(),
      .n_params_estimate = wire.n_params_estimate(),
      .n_layers = wire.n_layers(),
      .n_heads = wire.n_heads(),
      .d_model = wire.d_model(),
      .d_vocab = wire.d_vocab(),
  };
}

ServerInfo server_info_of(const v1::ServerInfoResponse& wire) {
  ServerInfo info{
      .api_version = wire.api_version(),
      .server_version = wire.server_version(),
      .models = {},
      .limits = limits_of(wire.limits()),
      .features = {wire.features().begin(), wire.features().end()},
      .versions = {wire.versions().begin(), wire.versions().end()},
      .stored_runs = wire.stored_runs(),
      .stored_run_bytes = wire.stored_run_bytes(),
      .datasets = {},
  };
  for (const auto& dataset : wire.datasets())
    info.datasets.push_back({.name = dataset.name(), .n_sentences = dataset.n_sentences()});
  for (const auto& model : wire.models()) {
    if (!model.digest().empty()) require_digest(model.digest());  // one never loaded has none yet
    info.models.push_back(description_of(model));
  }
  return info;
}

std::optional<ModelDescription> Descriptions::with_neuron_outputs(Connection& connection,
                                                                  const std::string& digest,
                                                                  const CallTerms& terms) {
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = known_.find(digest); found != known_.end()) return found->second;
  }
  const ServerInfo info = server_info_of(
      unary(connection, &Stub::ServerInfo, v1::ServerInfoRequest(), terms));  // without the lock
  const bool gives = std::find(info.features.begin(), info.features.end(), "neuron_outputs") !=
                     info.features.end();
  std::optional<ModelDescription> described;
  for (const ModelDescription& model : info.models) {
    if (gives && model.digest == digest) described = model;
  }
  const std::lock_guard lock(mutex_);
  if (known_.size() >= kMostModels && !known_.contains(digest)) known_.clear();
  std::optional<ModelDescription>& known = known_[digest];
  if (!known) known = std::move(described);  // calls under way rely on a model that is known
  return known;
}

std::optional<ModelDescription> Descriptions::served(Connection& connection,
                                                     const std::string& name,
                                                     const std::string& digest,
                                                     const CallTerms& terms) {
  const ServerInfo info =
      server_info_of(unary(connection, &Stub::ServerInfo, v1::ServerInfoRequest(), terms));
  for (const ModelDescription& model : info.models) {
    const bool is_named = name.empty() ? info.models.size() == 1
                                       : model.info.name == name || contains(model.aliases, name);
    const bool is_meant = digest.empty() ? is_named : model.digest == digest;
    if (is_meant && !model.digest.empty()) return model;
  }
  return std::nullopt;
}

ServerInfo Descriptions::said(Connection& connection, const CallTerms& terms) {
  {
    const std::lock_guard lock(mutex_);
    if (said_) return *said_;
  }
  ServerInfo info = server_info_of(
      unary(connection, &Stub::ServerInfo, v1::ServerInfoRequest(), terms));  // without the lock
  info.models.clear();
  const std::lock_guard lock(mutex_);
  said_ = info;
  return info;
}

bool Descriptions::offers(Connection& connection, const std::string& feature,
                          const CallTerms& terms) {
  return contains(said(connection, terms).features, feature);
}

Limits Descriptions::limits(Connection& connection, const CallTerms& terms) {
  return said(connection, terms).limits;
}

void Descriptions::add_known(Lengths& lengths, const std::string& digest) {
  const std::lock_guard lock(mutex_);
  const auto found = known_.find(digest);
  if (found == known_.end() || !found->second) return;
  lengths["d_model"] = found->second->info.d_model;
  lengths["d_vocab"] = found->second->info.d_vocab;
  lengths["layer"] = found->second->info.n_layers;
  lengths["head"] = found->second->info.n_heads;
}

}  // namespace transparent_llm::internal
