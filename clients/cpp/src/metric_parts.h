// What metrics are made of.

#pragma once

#include "current_run.h"
#include "transparent_llm/metrics.h"
#include "transparent_llm/v1/sweeps.pb.h"

namespace transparent_llm::internal {

struct MetricParts {
  v1::SweepMetric message;
  /// Runs that it takes from.
  Sources sources = {};
};

}  // namespace transparent_llm::internal
