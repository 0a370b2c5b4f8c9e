// Numbers of rows, layers, positions, heads, neurons and tokens.

#pragma once

#include <cstdint>

namespace transparent_llm {

/// An index, from 0. Wider than the wire's 32 bits, so that a number which does not fit is an error
/// and not another one.
using Index = std::int64_t;

}  // namespace transparent_llm
