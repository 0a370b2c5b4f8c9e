// Digests: names of models, under which things are kept, perhaps in files.

#pragma once

#include <algorithm>
#include <string>

#include "legible.h"
#include "transparent_llm/errors.h"

namespace transparent_llm::internal {

/// Throws InternalError if a server gave something else than a SHA-256 in hex.
inline void require_digest(const std::string& text) {
  const bool fits = text.size() == 64 && std::all_of(text.begin(), text.end(), [](char sign) {
                      return (sign >= '0' && sign <= '9') || (sign >= 'a' && sign <= 'f');
                    });
  if (!fits)
    throw InternalError("the server names a model by the digest " + in_quotes(text) +
                        ", which is not a SHA-256 in hex");
}

}  // namespace transparent_llm::internal
