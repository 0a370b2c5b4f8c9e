#include "calls.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <stop_token>
#include <thread>

#include "analyses.h"
#include "edits.h"
#include "generations.h"
#include "gradients.h"

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
  const Json slices = request.value("slices", Json::object());
  for (const auto& [axis, part] : slices.items()) {
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
};

Read read_from(const Wanted& wanted) { return driver::read_from(wanted.method, wanted.args); }

Tensor tensor_of(Client& llm, const Wanted& wanted, const ReadOptions& options) {
  const std::string& name = wanted.method;
  if (name == "tokens") return llm.tokens(options);
  if (name == "mask") return llm.mask(options);
  if (name == "unembed")
    return llm.unembed(tensor_from(wanted.args.at(0)), wanted.args.at(1).get<bool>(), options);
  if (name == "neuron_output") return llm.neuron_output(wanted.index(0), wanted.index(1), options);
  return llm.read(read_from(wanted), options);
}

std::vector<Read> reads_from(const Json& args) {
  std::vector<Read> reads;
  for (const Json& one : args.at(0)) {
    const Json parts = one.is_string() ? Json::array({one}) : one;
    const Wanted wanted{parts.at(0).get<std::string>(), Json(parts.begin() + 1, parts.end())};
    reads.push_back(read_from(wanted));
  }
  return reads;
}

Json fetched(Client& llm, const Json& args, const ReadOptions& options) {
  Json tensors = Json::array();
  for (const Tensor& tensor : llm.fetch(reads_from(args), options))
    tensors.push_back(to_json(tensor));
  return tensors;
}

Json fetched_parts(Client& llm, const Json& args, const ReadOptions& options) {
  Json values = Json::array();
  for (const Parts& parts : llm.fetch_parts(reads_from(args), options))
    values.push_back(to_json(parts));
  return values;
}

Json planned(Client& llm, const Json& args, const ReadOptions& options) {
  Json plans = Json::array();
  for (const PlannedRead& plan : llm.plan(reads_from(args), options)) {
    plans.push_back({{"name", plan.name},
                     {"shape", plan.shape},
                     {"dims", plan.dims},
                     {"dtype", name_of(plan.dtype)},
                     {"bytes", plan.n_bytes},
                     {"transfer_bytes", plan.transfer_bytes}});
  }
  return plans;
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

Json ran(Client& llm, const Wanted& wanted, const RunOptions& options) {
  const Json& input = wanted.args.at(0);
  if (input.is_string()) {  // what does not compile with this client's API is refused in the words
                            // of the others
    throw InvalidRequestError(
        "run takes a list of sentences; for one sentence write run({sentence})");
  }
  if (wanted.method == "run")
    llm.run(input.get<std::vector<std::string>>(), options);
  else
    llm.run_tokens(input.get<std::vector<std::vector<Index>>>(), options);
  return {{"run_id", llm.run_id()}};
}

/// Token ids as a list, or as the tensor that `tokens` gives.
std::vector<Index> ids_from(const Json& json) {
  if (json.is_array()) return json.get<std::vector<Index>>();
  const Tensor tensor = tensor_from(json);
  const auto ids = tensor.as<Index>();
  return {ids.begin(), ids.end()};
}

Json of_text(Client& llm, const Wanted& wanted, const CallOptions& options) {
  const std::string text = wanted.args.at(0).get<std::string>();
  const Json given = wanted.args.size() > 1 ? wanted.args.at(1) : Json(nullptr);
  const auto add_bos = given.is_null() ? std::nullopt : std::optional(given.get<bool>());
  if (wanted.method == "to_tokens") return Json(llm.to_tokens(text, add_bos, options));
  if (wanted.method == "to_str_tokens") return Json(llm.to_str_tokens(text, add_bos, options));
  return Json(llm.to_single_token(text, options));
}

Json described(const std::vector<TokenAt>& tokens) {
  Json rows = Json::array();
  for (const auto& [row, pos, id, text] : tokens) rows.push_back(Json::array({row, pos, id, text}));
  return rows;
}

/// Of a method that gives no tensor; none if it does.
std::optional<Json> value_of(Client& llm, const Wanted& wanted, const CallOptions& options) {
  const std::string& name = wanted.method;
  if (name == "effects") return to_json(llm.effects());
  if (name == "model_info") return info_of(llm.model_info(options));
  if (name == "server_info") return server_of(llm.server_info(options));
  if (name == "is_serving") return Json(llm.is_serving(options));
  if (name == "batch_size") return Json(llm.batch_size());
  if (name == "tokens_to_strings")
    return Json(llm.tokens_to_strings(ids_from(wanted.args.at(0)), options));
  if (name == "last") return Json(llm.last());
  if (name == "describe_run") return described(llm.describe_run(options));
  if (name == "to_tokens" || name == "to_str_tokens" || name == "to_single_token")
    return of_text(llm, wanted, options);
  if (name == "release") {
    llm.release(options);
    return Json(nullptr);
  }
  return std::nullopt;
}

}  // namespace

Json call(Clients& clients, const std::string& name, const Json& request) {
  Client& llm = clients.at(name);
  const Wanted wanted{request.at("method").get<std::string>(),
                      request.value("args", Json::array())};
  ReadOptions options = options_from(request);
  Json reports = Json::array();
  const bool has_progress = request.value("progress", Json(false)) == Json(true);
  if (has_progress) {
    options.on_progress = [&reports](std::uint64_t received, std::uint64_t total) {
      reports.push_back({received, total});
    };
  }
  std::optional<Timer> timer;
  if (const Json after = request.value("cancel_after_s", Json()); !after.is_null()) {
    options.stop_token = timer.emplace(after.get<double>()).token();
  }
  Json ok = Json::object();
  if (wanted.method == "run" || wanted.method == "run_tokens")
    ok["value"] = ran(llm, wanted,
                      {.timeout = options.timeout,
                       .stop_token = options.stop_token,
                       .edits = edits_from(request.value("edits", Json::array()), clients)});
  else if (wanted.method == "generate")
    ok["value"] = generated(llm, request.at("generation"),
                            {.edits = edits_from(request.value("edits", Json::array()), clients),
                             .timeout = options.timeout,
                             .stop_token = options.stop_token});
  else if (wanted.method == "gradients")
    ok["parts"] = differentiated(llm, request, clients);
  else if (wanted.method == "sweep")
    ok["parts"] = swept(llm, request, clients);
  else if (wanted.method == "compare")
    ok["value"] = compared(llm, request, clients);
  else if (wanted.method == "plan")
    ok["value"] = planned(llm, wanted.args, options);
  else if (wanted.method == "fetch")
    ok["tensors"] = fetched(llm, wanted.args, options);
  else if (wanted.method == "fetch_parts")
    ok["values"] = fetched_parts(llm, wanted.args, options);
  else if (const auto answer = analysis(llm, wanted.method, wanted.args, options))
    ok = *answer;
  else if (const auto value = value_of(llm, wanted, {options.timeout, options.stop_token}))
    ok["value"] = *value;
  else
    ok["tensor"] = to_json(tensor_of(llm, wanted, options));
  if (has_progress) ok["progress"] = reports;
  return ok;
}

Json time(Client& llm, const Json& request) {
  const Wanted wanted{request.at("method").get<std::string>(),
                      request.value("args", Json::array())};
  Json seconds = Json::array();
  for (int left = request.at("times").get<int>(); left > 0; --left) {
    const auto started = std::chrono::steady_clock::now();
    tensor_of(llm, wanted, {});
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count());
  }
  return {{"seconds", seconds}};
}

}  // namespace driver
