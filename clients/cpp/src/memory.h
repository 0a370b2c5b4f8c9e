// The memory of this machine.

#pragma once

#include <cstdint>

namespace transparent_llm::internal {

/// Half of what there is, or of what the container may take if that is less; 4 GiB where it cannot
/// be told.
std::uint64_t half_of_memory();

}  // namespace transparent_llm::internal
