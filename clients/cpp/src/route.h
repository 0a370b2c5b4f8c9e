// Which proxy a connection goes through, by the rule of docs/PROTOCOL.md, "Proxies".

#pragma once

#include <functional>
#include <string>

#include "failure.h"
#include "transparent_llm/options.h"

namespace transparent_llm::internal {

/// How a connection reaches its target.
struct Route {
  /// "http://[USER:PASS@]HOST:PORT"; empty: directly.
  std::string proxy = {};
  /// The same without the user, for messages.
  std::string proxy_name = {};
  /// The variable that names a proxy which is not used though nobody said so; else empty.
  std::string hint = {};

  /// What lies at the other end, for messages.
  std::string peer(const std::string& target) const;
  /// A failure with what is to be known of the proxy, if the server did not speak in it.
  Failure told(Failure failure, const std::string& target) const;
};

/// A variable of the environment; null if it is not set.
using Environment = std::function<const char*(const char* name)>;

/// Throws InvalidRequestError for a setting that names no proxy, or one that cannot be used for the
/// target.
Route route_to(const std::string& target, const Options& options, const Environment& look);

}  // namespace transparent_llm::internal
