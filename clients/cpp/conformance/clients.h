// The client objects of a session, by name.

#pragma once

#include <map>
#include <string>

#include "json.h"

namespace driver {

class Clients {
 public:
  void connect(const std::string& name, const Json& request);
  void copy(const std::string& name, const std::string& to);
  /// Throws std::out_of_range if there is none.
  transparent_llm::Client& at(const std::string& name) { return clients_.at(name); }

 private:
  std::map<std::string, transparent_llm::Client> clients_;
};

}  // namespace driver
