// The logit lens: what the model would say next if it stopped after each layer.
//
//   logit_lens HOST:PORT [SENTENCE]

#include <algorithm>
#include <cstddef>
#include <iomanip>
#include <iostream>
#include <string>
#include <vector>

#include "transparent_llm/client.h"

namespace {

using transparent_llm::Client;
using transparent_llm::Index;
using transparent_llm::Tensor;

/// The most likely next token after a layer, from the residual stream [batch pos d_model] at one
/// position.
Index next_token(Client& llm, const Tensor& residual) {
  const std::vector<float> logits =
      llm.unembed(Tensor::of_floats(residual.floats()), true).floats();
  return std::max_element(logits.begin(), logits.end()) - logits.begin();
}

/// A server's text with nothing in it that a terminal obeys: controls are shown as '?'.
std::string printable(std::string text) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool is_late = byte == 0xc2 && i + 1 < text.size() &&
                         static_cast<unsigned char>(text[i + 1]) < 0xa0;  // U+0080 to U+009F
    if (is_late) text[i + 1] = '?';
    if (byte < 0x20 || byte == 0x7f || is_late) text[i] = '?';
  }
  return text;
}

void show(Client& llm, const std::string& sentence) {
  const transparent_llm::ModelInfo model = llm.model_info();
  llm.run({sentence});
  std::vector<Index> best;
  for (Index layer = 0; layer < model.n_layers; ++layer) {
    best.push_back(next_token(llm, llm.residual_out(layer, {.slices = {{"pos", {.start = -1}}}})));
  }
  const std::vector<std::string> words = llm.tokens_to_strings(best);
  std::cout << printable(model.name) << ", after \"" << sentence << "\":\n";
  for (std::size_t layer = 0; layer < words.size(); ++layer) {
    std::cout << "layer " << layer << ": " << std::quoted(printable(words[layer])) << '\n';
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: logit_lens HOST:PORT [SENTENCE]\n";
    return 2;
  }
  try {
    Client llm = Client::connect(argv[1]);
    show(llm, argc > 2 ? argv[2] : "To be or not to");
  } catch (const transparent_llm::Error& error) {
    std::cerr << "logit_lens: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
