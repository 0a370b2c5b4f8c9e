// Element types of tensors.

#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace transparent_llm {

/// The type of a tensor's elements. The names are those of the safetensors format.
enum class Dtype {
  kBool,  ///< One byte an element, 0 or 1.
  kU8,
  kI8,
  kI16,
  kI32,
  kI64,
  kF16,   ///< IEEE 754 half precision.
  kBF16,  ///< The upper 16 bits of an IEEE 754 single.
  kF32,
  kF64,
};

/// Bytes of one element.
std::size_t size_of(Dtype dtype);

/// Its name, for example "BF16".
std::string_view name_of(Dtype dtype);

/// The type of that name, or none.
std::optional<Dtype> dtype_named(std::string_view name);

/// Whether it is one of F16, BF16, F32 and F64.
bool is_floating(Dtype dtype);

}  // namespace transparent_llm
