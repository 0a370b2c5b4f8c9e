// Edits as scenarios write them.

#pragma once

#include <vector>

#include "clients.h"
#include "json.h"

namespace driver {

/// Those of a call, which take from the clients that they name. Throws transparent_llm::Error as
/// the library does.
std::vector<transparent_llm::Edit> edits_from(const Json& edits, Clients& clients);

/// A site, such as ["head", 1, 2].
transparent_llm::Site site_from(const Json& json);
/// A vector of an edit, or of a metric.
transparent_llm::Vector vector_from(const Json& json, Clients& clients);

Json to_json(const std::vector<transparent_llm::EditEffect>& effects);

}  // namespace driver
