// Uses the library from outside: what it says of a client that nobody has run anything with needs
// no server.

#include <iostream>

#include "transparent_llm/client.h"

int main() {
  transparent_llm::Client llm = transparent_llm::Client::connect("127.0.0.1:1");
  try {
    llm.logits({.slices = {{"pos", {.start = -1}}}, .dtype = transparent_llm::Dtype::kF32});
  } catch (const transparent_llm::NotRunError& error) {
    std::cout << transparent_llm::kVersion << ' ' << error.reason() << '\n';
    return 0;
  }
  return 1;
}
