// Parts of named axes, as they are asked for and as they are cut here.

#pragma once

#include <span>
#include <string_view>

#include "transparent_llm/options.h"
#include "transparent_llm/tensor.h"
#include "transparent_llm/v1/tensor.pb.h"

namespace transparent_llm::internal {

/// Throws InvalidRequestError for an axis that no value has, a step below 1 (INVALID_SLICE), or a
/// dtype that is not floating (INVALID_DTYPE).
void require_valid(const ReadOptions& options);

/// Throws InvalidRequestError (INVALID_SLICE) for a slice of an axis that a value does not have: it
/// would come whole, as if nothing had been asked for.
void require_axes(std::string_view name, std::span<const std::string_view> dims,
                  const ReadOptions& options);

/// The slice of an axis; null if it is not cut.
const Slice* slice_of(const ReadOptions& options, std::string_view axis);

/// Sets slices and dtype of a request for a value with these axes.
void fill(v1::TensorOptions& wire, std::span<const std::string_view> dims,
          const ReadOptions& options, bool is_floating);

/// How many indices of an axis a slice takes.
std::size_t count_of(const Slice& slice, std::size_t length);

/// The part of a tensor that is here already.
Tensor cut(const Tensor& whole, const ReadOptions& options);

}  // namespace transparent_llm::internal
