#include "edit_parts.h"

#include <algorithm>
#include <limits>

#include "legible.h"
#include "methods.h"
#include "run_input.h"
#include "transparent_llm/errors.h"

namespace transparent_llm {

double EditEffect::relative() const {
  if (norm != 0) return delta_norm / norm;
  return delta_norm != 0 ? std::numeric_limits<double>::infinity() : 0;
}

namespace internal {
namespace {

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
    add_sources(sources, edit.parts().sources);
  }
  return sources;
}

void add_sources(Sources& sources, const Sources& more) {
  for (const auto& source : more) {
    const auto is_same = [&](const auto& other) { return other->run_id == source->run_id; };
    if (std::none_of(sources.begin(), sources.end(), is_same)) sources.push_back(source);
  }
}

void add_indices(google::protobuf::RepeatedField<std::int32_t>& added, const char* name,
                 const std::vector<Index>& given) {
  for (const Index one : given) added.Add(to_int32(name, one));
}

void require_few(const std::string& what, std::size_t count, std::size_t most) {
  if (count <= most) return;
  throw TooLargeError(
      std::to_string(count) + " " + what + ", at most " + std::to_string(most) + " are possible",
      {.reason = {},
       .metadata = {{"needed", std::to_string(count)}, {"allowed", std::to_string(most)}},
       .retry_after = {}});
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
