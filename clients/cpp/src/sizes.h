// Bytes of tensors whose shapes may come from anyone.

#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>

namespace transparent_llm::internal {

/// Product of the lengths and the size of an element; none if it, or the distance of two elements
/// of an axis, is more than memory can be addressed by.
template <class Length>
std::optional<std::uint64_t> bytes_of(std::span<const Length> shape, std::size_t element_size) {
  constexpr std::uint64_t kMost = std::numeric_limits<std::int64_t>::max();
  std::uint64_t product = element_size;
  bool is_empty = false;
  for (const std::uint64_t length : shape) {
    is_empty = is_empty || length == 0;
    if (length != 0 && product > kMost / length) return std::nullopt;
    product *= length == 0 ? 1 : length;
  }
  return is_empty ? 0 : product;
}

}  // namespace transparent_llm::internal
