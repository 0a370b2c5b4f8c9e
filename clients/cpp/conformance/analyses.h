// Analyses, as the driver protocol asks for them.

#pragma once

#include <optional>
#include <string>

#include "json.h"
#include "transparent_llm/client.h"

namespace driver {

/// What an analysis answers, as "tensor" or "parts"; none if there is none of this name.
std::optional<Json> analysis(transparent_llm::Client& llm, const std::string& method,
                             const Json& args, const transparent_llm::ReadOptions& options);

/// A read of a name and its arguments, of which an object at the end has those with names.
transparent_llm::Read read_from(const std::string& method, const Json& args);

Json to_json(const transparent_llm::Parts& parts);

}  // namespace driver
