// The ops `call` and `time`: methods of a client.

#pragma once

#include <string>

#include "clients.h"
#include "json.h"

namespace driver {

/// What the method of the client with this name gives, as `ok` of the answer. Throws
/// transparent_llm::Error as the method does, and std::out_of_range if there is no such client.
Json call(Clients& clients, const std::string& name, const Json& request);

/// The seconds that each of some calls of a read took, as `ok` of the answer. Throws as `call` does.
Json time(transparent_llm::Client& llm, const Json& request);

}  // namespace driver
