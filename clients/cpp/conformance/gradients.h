// Metrics, sweeps and gradients as scenarios write them.

#pragma once

#include "clients.h"
#include "json.h"

namespace driver {

/// What came, under "parts". Throw transparent_llm::Error as the library does.
Json swept(transparent_llm::Client& llm, const Json& request, Clients& clients);
Json differentiated(transparent_llm::Client& llm, const Json& request, Clients& clients);
/// A list of rows.
Json compared(transparent_llm::Client& llm, const Json& request, Clients& clients);

}  // namespace driver
