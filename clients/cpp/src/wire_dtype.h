// Element types on the wire.

#pragma once

#include <optional>

#include "transparent_llm/dtype.h"
#include "transparent_llm/v1/tensor.pb.h"

namespace transparent_llm::internal {

static_assert(static_cast<int>(Dtype::kBool) + 1 == v1::DTYPE_BOOL);
static_assert(static_cast<int>(Dtype::kI64) + 1 == v1::DTYPE_I64);
static_assert(static_cast<int>(Dtype::kBF16) + 1 == v1::DTYPE_BF16);
static_assert(static_cast<int>(Dtype::kF64) + 1 == v1::DTYPE_F64);

/// The enum of the schema is in the same order, after DTYPE_UNSPECIFIED.
inline v1::Dtype to_wire(Dtype dtype) {
  return static_cast<v1::Dtype>(static_cast<int>(dtype) + 1);
}

/// None for a number that this library does not know, and for DTYPE_UNSPECIFIED.
inline std::optional<Dtype> from_wire(v1::Dtype wire) {
  if (wire < v1::DTYPE_BOOL || wire > v1::DTYPE_F64) return std::nullopt;
  return static_cast<Dtype>(static_cast<int>(wire) - 1);
}

}  // namespace transparent_llm::internal
