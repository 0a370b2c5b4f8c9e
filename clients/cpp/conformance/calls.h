// The op `call`: one method of a client.

#pragma once

#include "json.h"

namespace driver {

/// What the method gives, as `ok` of the answer. Throws transparent_llm::Error as the method does.
Json call(transparent_llm::Client& llm, const Json& request);

}  // namespace driver
