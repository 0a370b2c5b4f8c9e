// How many tokens a row has, which padding follows.

#pragma once

#include <algorithm>
#include <cstddef>

#include "transparent_llm/tensor.h"

namespace transparent_llm::internal {

/// Of a row of a mask [batch pos].
inline std::size_t row_length(const Tensor& mask, std::size_t row) {
  const std::size_t n_pos = mask.shape()[1];
  const auto of_row = mask.bytes().subspan(row * n_pos, n_pos);
  return n_pos - static_cast<std::size_t>(std::count(of_row.begin(), of_row.end(), std::byte{0}));
}

}  // namespace transparent_llm::internal
