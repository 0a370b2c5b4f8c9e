#include "clients.h"

#include <chrono>
#include <stdexcept>
#include <string>
#include <vector>

namespace driver {
namespace {

using transparent_llm::Client;
using transparent_llm::Options;

std::chrono::milliseconds milliseconds(const Json& seconds) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
      std::chrono::duration<double>(seconds.get<double>()));
}

Options options_from(const Json& json) {
  Options options;
  options.timeout = std::chrono::seconds(60);
  options.cache_bytes = 0;
  for (const auto& [name, value] : json.items()) {
    if (value.is_null()) continue;
    if (name == "model")
      options.model = value.get<std::string>();
    else if (name == "timeout_s")
      options.timeout = milliseconds(value);
    else if (name == "rerun")
      options.rerun = value.get<bool>();
    else if (name == "token")
      options.token = value.get<std::string>();
    else if (name == "tls_ca")
      options.tls_ca = value.get<std::string>();
    else if (name == "tls_cert")
      options.tls_cert = value.get<std::string>();
    else if (name == "tls_key")
      options.tls_key = value.get<std::string>();
    else if (name == "cache_bytes")
      options.cache_bytes = value.get<std::uint64_t>();
    else if (name == "reconnect_s")
      options.reconnect = milliseconds(value);
    else if (name == "max_bytes")
      options.max_bytes = value.get<std::uint64_t>();
    else if (name == "targets")
      continue;
    else
      throw std::invalid_argument("unknown option " + name);
  }
  return options;
}

}  // namespace

void Clients::connect(const std::string& name, const Json& request) {
  const Json options = request.value("options", Json::object());
  const auto targets = options.contains("targets")
                           ? options.at("targets").get<std::vector<std::string>>()
                           : std::vector{request.at("target").get<std::string>()};
  clients_.insert_or_assign(name, Client::connect_all(targets, options_from(options)));
}

void Clients::copy(const std::string& name, const std::string& to) {
  clients_.insert_or_assign(to, at(name).copy());
}

}  // namespace driver
