// The ops `call` and `time`: methods of a client.

#pragma once

#include "json.h"

namespace driver {

/// What the method gives, as `ok` of the answer. Throws transparent_llm::Error as the method does.
Json call(transparent_llm::Client& llm, const Json& request);

/// The seconds that each of some calls of a read took, as `ok` of the answer. Throws as `call` does.
Json time(transparent_llm::Client& llm, const Json& request);

}  // namespace driver
