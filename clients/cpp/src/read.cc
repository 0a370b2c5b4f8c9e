#include "transparent_llm/read.h"

#include <array>
#include <string>

#include "transparent_llm/errors.h"

namespace transparent_llm {
namespace {

struct Arity {
  std::string_view method;
  std::size_t least;
  std::size_t most;
};

constexpr std::array kArities = {
    Arity{"tokens", 0, 0},
    Arity{"logits", 0, 0},
    Arity{"residual_in", 1, 1},
    Arity{"residual_after_attn", 1, 1},
    Arity{"residual_out", 1, 1},
    Arity{"ffn_out", 1, 1},
    Arity{"decomposed_ffn_out", 3, 3},
    Arity{"neuron_activations", 3, 3},
    Arity{"attention_matrix", 3, 3},
    Arity{"attention_output", 3, 4},
    Arity{"decomposed_attn", 2, 2},
};

}  // namespace

Read Read::named(std::string_view method, std::vector<std::optional<Index>> indices) {
  std::string known;
  for (const Arity& arity : kArities) {
    known += (known.empty() ? "" : ", ") + std::string(arity.method);
    if (arity.method != method) continue;
    if (indices.size() < arity.least || indices.size() > arity.most) {
      throw InvalidRequestError(std::string(method) + " takes " + std::to_string(arity.most) +
                                " arguments, got " + std::to_string(indices.size()));
    }
    indices.resize(arity.most);
    return Read(arity.method, std::move(indices));
  }
  throw InvalidRequestError("there is no '" + std::string(method) +
                            "' to read of a run; known are " + known);
}

}  // namespace transparent_llm
