// The ops `decode` and `decode_error`: wire messages without a server. They use the library's own
// headers.

#pragma once

#include "json.h"

namespace driver {

Json decode(const Json& request);
/// The error that a call which failed so throws.
Json decode_error(const Json& request);

}  // namespace driver
