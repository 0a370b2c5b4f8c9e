#include "edit_parts.h"

#include <algorithm>
#include <limits>

#include "legible.h"
#include "run_input.h"
#include "transparent_llm/errors.h"

namespace transparent_llm {

double EditEffect::relative() const {
  if (norm != 0) return delta_norm / norm;
  return delta_norm != 0 ? std::numeric_limits<double>::infinity() : 0;
}

namespace internal {
namespace {

/// Of one run.
constexpr std::size_t kMostEdits = 512;

/// Characters of an edit in words that are kept.
constexpr std::size_t kMostWords = 1000;

}  // namespace

const std::string& sae_name(const std::string& sae) {
  if (sae.empty()) throw InvalidRequestError("the name of a sparse autoencoder is empty");
  require_utf8("the name of a sparse autoencoder", sae);
  return sae;
}

Sources add_edits(Interventions& added, const std::vector<Edit>& edits) {
  if (edits.size() > kMostEdits) {
    throw TooLargeError(std::to_string(edits.size()) + " edits of one run, at most " +
                            std::to_string(kMostEdits) + " can be made",
                        {.reason = "TOO_LONG",
                         .metadata = {{"needed", std::to_string(edits.size())},
                                      {"allowed", std::to_string(kMostEdits)}},
                         .retry_after = {}});
  }
  Sources sources;
  for (const Edit& edit : edits) {
    *added.Add() = edit.parts().message;
    for (const auto& source : edit.parts().sources) {
      const auto is_same = [&](const auto& other) { return other->run_id == source->run_id; };
      if (std::none_of(sources.begin(), sources.end(), is_same)) sources.push_back(source);
    }
  }
  return sources;
}

std::vector<EditEffect> effects_of(const v1::RunResponse& response, int n_edits) {
  if (response.effects_size() != n_edits) {
    throw InternalError("the server sent effects of " + std::to_string(response.effects_size()) +
                        " edits for " + std::to_string(n_edits) + " that were sent");
  }
  std::vector<EditEffect> effects;
  for (const v1::EditEffect& wire : response.effects()) {
    effects.push_back({.edit = legible(wire.edit(), kMostWords),
                       .selected = wire.selected(),
                       .changed = wire.changed(),
                       .delta_norm = wire.delta_norm(),
                       .norm = wire.norm(),
                       .max_delta = wire.max_delta()});
  }
  return effects;
}

}  // namespace internal
}  // namespace transparent_llm
