// The server of the demo model that the tests were started with.

#pragma once

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace transparent_llm::test {

inline std::string real_server() {
  const char* address = std::getenv("TRANSPARENT_LLM_ADDRESS");
  if (address == nullptr)
    throw std::runtime_error("set TRANSPARENT_LLM_ADDRESS to a server of the demo model");
  return address;
}

}  // namespace transparent_llm::test
