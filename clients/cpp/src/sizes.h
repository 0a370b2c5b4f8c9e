// Bytes of tensors whose shapes may come from anyone.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>

namespace transparent_llm::internal {

/// Twice as many as any value has; more of them only take time.
inline constexpr std::size_t kMostAxes = 8;
/// More bytes than a process has addresses for.
inline constexpr std::uint64_t kAddressable = std::uint64_t{1} << 47;

/// Product of the lengths and the size of an element. None if no tensor can be like that: more axes
/// than any value has, or more than a process can address, where an axis of length 0 counts as 1.
template <class Length>
std::optional<std::uint64_t> bytes_of(std::span<const Length> shape, std::size_t element_size) {
  if (shape.size() > kMostAxes) return std::nullopt;
  std::uint64_t product = element_size;
  bool is_empty = false;
  for (const std::uint64_t length : shape) {
    is_empty = is_empty || length == 0;
    if (length > kAddressable / product) return std::nullopt;
    product *= std::max<std::uint64_t>(length, 1);
  }
  return is_empty ? 0 : product;
}

/// The same, or the largest number there is if it is larger: for messages.
inline std::uint64_t product_of(std::span<const std::size_t> shape, std::size_t element_size) {
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t product = element_size;
  for (const std::uint64_t length : shape)
    product = length != 0 && product > kMost / length ? kMost : product * length;
  return product;
}

}  // namespace transparent_llm::internal
