// The conformance driver: requests from standard input, answers to standard output, a line of JSON
// each.

#include <exception>
#include <iostream>
#include <stdexcept>
#include <string>

#include "calls.h"
#include "clients.h"
#include "json.h"
#include "offline.h"

namespace {

using driver::Json;

Json answered(driver::Clients& clients, const Json& request) {
  const std::string op = request.at("op").get<std::string>();
  const std::string name = request.value("llm", "main");
  if (op == "hello") return {{"client", "cpp"}, {"version", transparent_llm::kVersion}};
  if (op == "call") return driver::call(clients, name, request);
  if (op == "time") return driver::time(clients.at(name), request);
  if (op == "decode") return driver::decode(request);
  if (op == "decode_error") return driver::decode_error(request);
  if (op == "connect")
    clients.connect(name, request);
  else if (op == "copy")
    clients.copy(name, request.at("to").get<std::string>());
  else if (op == "close")
    clients.at(name).close();
  else
    throw std::invalid_argument("unknown op " + op);
  return Json::object();
}

Json own_error(const std::string& message) {
  return {{"class", "DriverError"},
          {"reason", "DRIVER"},
          {"message", message},
          {"metadata", Json::object()},
          {"retry_after_s", nullptr}};
}

Json answer_to(driver::Clients& clients, const std::string& line) {
  Json answer = {{"id", nullptr}};
  try {
    const Json request = Json::parse(line);
    answer["id"] = request.at("id");
    answer["ok"] = answered(clients, request);
  } catch (const transparent_llm::Error& error) {
    answer["error"] = driver::to_json(error);
  } catch (const std::exception& error) {
    answer["error"] = own_error(error.what());
  }
  return answer;
}

}  // namespace

int main() {
  driver::Clients clients;
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << answer_to(clients, line).dump(-1, ' ', false, Json::error_handler_t::replace)
              << std::endl;
  }
  return 0;
}
