#include "calls.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <stop_token>
#include <thread>

namespace driver {
namespace {

using namespace transparent_llm;

/// Requests a stop after some time, unless the call is done before.
class Timer {
 public:
  explicit Timer(double seconds)
      : thread_([this, seconds](const std::stop_token& done) {
          std::mutex mutex;
          std::unique_lock lock(mutex);
          std::condition_variable_any woken;
          woken.wait_for(lock, done, std::chrono::duration<double>(seconds), [] { return false; });
          if (!done.stop_requested()) source_.request_stop();
        }) {}
  std::stop_token token() const { return source_.get_token(); }

 private:
  std::stop_source source_;
  std::jthread thread_;
};

std::optional<std::int64_t> bound(const Json& json) {
  return json.is_null() ? std::nullopt : std::optional(json.get<std::int64_t>());
}

ReadOptions options_from(const Json& request) {
  ReadOptions options;
  for (const auto& [axis, part] : request.value("slices", Json::object()).items()) {
    options.slices[axis] = {bound(part.at(0)), bound(part.at(1)), bound(part.at(2))};
  }
  if (const Json dtype = request.value("dtype", Json()); !dtype.is_null()) {
    options.dtype = dtype_named(dtype.get<std::string>());
    if (!options.dtype) throw std::invalid_argument("no dtype: " + dtype.dump());
  }
  return options;
}

/// A method's name and its arguments, as `fetch` has them in a list and `call` in two fields.
struct Wanted {
  std::string method;
  Json args;

  Index index(std::size_t place) const { return args.at(place).get<Index>(); }
  std::optional<Index> index_or_none(std::size_t place) const { return args.size() > place ? bound(args[place]) : std::nullopt; }
};

std::optional<Read> read_from(const Wanted& wanted) {
  const std::string& name = wanted.method;
  const auto index = [&wanted](std::size_t place) { return wanted.index(place); };
  if (name == "tokens") return Read::tokens();
  if (name == "logits") return Read::logits();
  if (name == "residual_in") return Read::residual_in(index(0));
  if (name == "residual_after_attn") return Read::residual_after_attn(index(0));
  if (name == "residual_out") return Read::residual_out(index(0));
  if (name == "ffn_out") return Read::ffn_out(index(0));
  if (name == "decomposed_ffn_out") return Read::decomposed_ffn_out(index(0), index(1), index(2));
  if (name == "neuron_activations") return Read::neuron_activations(index(0), index(1), index(2));
  if (name == "attention_matrix") return Read::attention_matrix(index(0), index(1), index(2));
  if (name == "attention_output") return Read::attention_output(index(0), index(1), index(2), wanted.index_or_none(3));
  if (name == "decomposed_attn") return Read::decomposed_attn(index(0), index(1));
  return std::nullopt;
}

std::optional<Tensor> tensor_of(Client& llm, const Wanted& wanted, const ReadOptions& options) {
  const std::string& name = wanted.method;
  if (name == "tokens") return llm.tokens(options);
  if (name == "mask") return llm.mask(options);
  if (name == "unembed") return llm.unembed(tensor_from(wanted.args.at(0)), wanted.args.at(1).get<bool>(), options);
  if (name == "neuron_output") return llm.neuron_output(wanted.index(0), wanted.index(1), options);
  if (const auto read = read_from(wanted)) return llm.read(*read, options);
  return std::nullopt;
}

Json fetched(Client& llm, const Json& args, const ReadOptions& options) {
  std::vector<Read> reads;
  for (const Json& one : args.at(0)) {
    const Json parts = one.is_string() ? Json::array({one}) : one;
    const Wanted wanted{parts.at(0).get<std::string>(), Json(parts.begin() + 1, parts.end())};
    const auto read = read_from(wanted);
    if (!read) throw std::invalid_argument("there is no " + wanted.method + " to fetch");
    reads.push_back(*read);
  }
  Json tensors = Json::array();
  for (const Tensor& tensor : llm.fetch(reads, options)) tensors.push_back(to_json(tensor));
  return tensors;
}

Json info_of(const ModelInfo& info) {
  return {{"name", info.name},         {"n_params_estimate", info.n_params_estimate},
          {"n_layers", info.n_layers}, {"n_heads", info.n_heads},
          {"d_model", info.d_model},   {"d_vocab", info.d_vocab}};
}

Json server_of(const ServerInfo& info) {
  Json models = Json::array();
  for (const ModelDescription& model : info.models) {
    models.push_back({{"name", model.info.name},
                      {"digest", model.digest},
                      {"n_ctx", model.n_ctx},
                      {"dtype", model.dtype ? Json(name_of(*model.dtype)) : Json(nullptr)}});
  }
  return {{"api_version", info.api_version}, {"features", info.features}, {"models", models}};
}

Json ran(Client& llm, const Wanted& wanted, const CallOptions& options) {
  const Json& input = wanted.args.at(0);
  if (input.is_string()) {  // what does not compile with this client's API is refused in the words of the others
    throw InvalidRequestError("run takes a list of sentences; for one sentence write run({sentence})");
  }
  if (wanted.method == "run") llm.run(input.get<std::vector<std::string>>(), options);
  else llm.run_tokens(input.get<std::vector<std::vector<Index>>>(), options);
  return {{"run_id", llm.run_id()}};
}

/// Token ids as a list, or as the tensor that `tokens` gives.
std::vector<Index> ids_from(const Json& json) {
  if (json.is_array()) return json.get<std::vector<Index>>();
  const Tensor tensor = tensor_from(json);
  const auto ids = tensor.as<Index>();
  return {ids.begin(), ids.end()};
}

Json value_of(Client& llm, const Wanted& wanted, const CallOptions& options) {
  const std::string& name = wanted.method;
  if (name == "run" || name == "run_tokens") return ran(llm, wanted, options);
  if (name == "model_info") return info_of(llm.model_info(options));
  if (name == "server_info") return server_of(llm.server_info(options));
  if (name == "is_serving") return llm.is_serving(options);
  if (name == "batch_size") return llm.batch_size();
  if (name == "tokens_to_strings") return llm.tokens_to_strings(ids_from(wanted.args.at(0)), options);
  if (name == "release") {
    llm.release(options);
    return nullptr;
  }
  throw std::invalid_argument("unknown method " + name);
}

}  // namespace

Json call(Client& llm, const Json& request) {
  const Wanted wanted{request.at("method").get<std::string>(), request.value("args", Json::array())};
  ReadOptions options = options_from(request);
  Json reports = Json::array();
  const bool has_progress = request.value("progress", Json(false)) == Json(true);
  if (has_progress) {
    options.on_progress = [&reports](std::uint64_t received, std::uint64_t total) { reports.push_back({received, total}); };
  }
  std::optional<Timer> timer;
  if (const Json after = request.value("cancel_after_s", Json()); !after.is_null()) {
    options.stop_token = timer.emplace(after.get<double>()).token();
  }
  Json ok = Json::object();
  if (wanted.method == "fetch") ok["tensors"] = fetched(llm, wanted.args, options);
  else if (const auto tensor = tensor_of(llm, wanted, options)) ok["tensor"] = to_json(*tensor);
  else ok["value"] = value_of(llm, wanted, {options.timeout, options.stop_token});
  if (has_progress) ok["progress"] = reports;
  return ok;
}

}  // namespace driver
