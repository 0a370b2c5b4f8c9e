// What gradients and paths are made of.

#pragma once

#include "current_run.h"
#include "transparent_llm/gradients.h"
#include "transparent_llm/v1/gradients.pb.h"

namespace transparent_llm::internal {

struct GradientParts {
  v1::GradientSite message;
  /// The run that it takes from.
  Sources sources = {};
};

struct PathParts {
  v1::GradientPath message;
  Sources sources = {};
};

}  // namespace transparent_llm::internal
