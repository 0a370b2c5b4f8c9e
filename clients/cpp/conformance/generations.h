// Generations, as the driver protocol asks for them.

#pragma once

#include "json.h"
#include "transparent_llm/client.h"

namespace driver {

/// {"steps", "run_id"} of a "generation"; `options` are those that stand beside it.
Json generated(transparent_llm::Client& llm, const Json& generation,
               transparent_llm::GenerateOptions options);

}  // namespace driver
