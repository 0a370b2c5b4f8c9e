#include "slices.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "method_table.h"
#include "tensor_access.h"
#include "transparent_llm/errors.h"
#include "wire_dtype.h"

namespace transparent_llm::internal {
namespace {

InvalidRequestError invalid_slice(const std::string& axis, const std::string& message) {
  return InvalidRequestError(
      message, {.reason = "INVALID_SLICE", .metadata = {{"axis", axis}}, .retry_after = {}});
}

/// What `unembed` calls the axis that is d_vocab elsewhere.
constexpr std::string_view kOtherName = "vocab";

/// The name by which an axis is known here: d_vocab has two.
std::string_view one_name(std::string_view axis) { return axis == kOtherName ? "d_vocab" : axis; }

/// A slice within an axis: `count` indices from `first` on.
struct Cut {
  std::size_t first = 0;
  std::size_t step = 1;
  std::size_t count = 0;
};

std::int64_t within(std::int64_t index, std::int64_t length) {
  return std::clamp<std::int64_t>(index < 0 ? index + length : index, 0, length);
}

Cut cut_of(const Slice& slice, std::size_t size) {
  const auto length = static_cast<std::int64_t>(size);
  const std::int64_t start = within(slice.start.value_or(0), length);
  const std::int64_t stop = within(slice.stop.value_or(length), length);
  const std::int64_t step = std::min(slice.step.value_or(1), std::max<std::int64_t>(length, 1));
  const std::int64_t count = stop > start ? (stop - start - 1) / step + 1 : 0;
  return {static_cast<std::size_t>(start), static_cast<std::size_t>(step),
          static_cast<std::size_t>(count)};
}

/// Copies what is left of an axis and of those after it; returns where the next element goes.
std::byte* copy(const Tensor& whole, std::span<const Cut> cuts, std::size_t axis, std::size_t place,
                std::byte* out) {
  const std::size_t element = size_of(whole.dtype());
  if (axis == cuts.size()) {
    std::memcpy(out, whole.bytes().data() + place * element, element);
    return out + element;
  }
  for (std::size_t i = 0; i < cuts[axis].count; ++i) {
    const std::size_t index = cuts[axis].first + i * cuts[axis].step;
    out = copy(whole, cuts, axis + 1, place * whole.shape()[axis] + index, out);
  }
  return out;
}

}  // namespace

void require_valid(const ReadOptions& options) {
  if (options.dtype && !is_floating(*options.dtype)) {
    const std::string got(name_of(*options.dtype));
    throw InvalidRequestError("a read takes a floating dtype, got " + got,
                              {.reason = "INVALID_DTYPE",
                               .metadata = {{"got", got}, {"allowed", "F16, BF16, F32, F64"}},
                               .retry_after = {}});
  }
  if (options.slices.contains("vocab") && options.slices.contains("d_vocab"))
    throw invalid_slice("vocab", "vocab and d_vocab are two names of one axis: give it once");
  for (const auto& [axis, slice] : options.slices) {
    if (std::find(axes().begin(), axes().end(), axis) == axes().end()) {
      std::string known;
      for (const std::string_view name : axes())
        if (name != kOtherName) known += (known.empty() ? "" : ", ") + std::string(name);
      throw invalid_slice(axis, "no value has an axis '" + axis + "'; the axes are " + known);
    }
    if (slice.step && *slice.step < 1) {
      throw invalid_slice(axis, "step " + std::to_string(*slice.step) + " on axis '" + axis +
                                    "': a step must be at least 1");
    }
  }
}

void require_axes(std::string_view name, std::span<const std::string_view> dims,
                  const ReadOptions& options) {
  std::string known;
  for (const std::string_view axis : dims)
    known += (known.empty() ? "" : ", ") + std::string(one_name(axis));
  for (const auto& [axis, slice] : options.slices) {
    const auto is_it = [&name = axis](std::string_view other) { return one_name(other) == one_name(name); };
    if (std::any_of(dims.begin(), dims.end(), is_it)) continue;
    throw invalid_slice(axis, std::string(name) + " has no axis '" + axis +
                                  "', which ReadOptions::slices cuts; its axes are " + known +
                                  ": read it without, or in a call of its own");
  }
}

const Slice* slice_of(const ReadOptions& options, std::string_view axis) {
  for (const auto& [name, slice] : options.slices)
    if (one_name(name) == one_name(axis)) return &slice;
  return nullptr;
}

void fill(v1::TensorOptions& wire, std::span<const std::string_view> dims,
          const ReadOptions& options, bool is_floating) {
  for (const std::string_view axis : dims) {
    const Slice* slice = slice_of(options, axis);
    if (slice == nullptr) continue;
    v1::AxisSlice& part = *wire.add_slices();
    part.set_axis(std::string(axis));
    if (slice->start) part.set_start(*slice->start);
    if (slice->stop) part.set_stop(*slice->stop);
    if (slice->step) part.set_step(*slice->step);
  }
  if (options.dtype && is_floating) wire.set_dtype(to_wire(*options.dtype));
}

std::size_t count_of(const Slice& slice, std::size_t length) { return cut_of(slice, length).count; }

Tensor cut(const Tensor& whole, const ReadOptions& options) {
  std::vector<Cut> cuts;
  std::vector<std::size_t> shape;
  std::size_t n_bytes = size_of(whole.dtype());
  for (std::size_t axis = 0; axis < whole.shape().size(); ++axis) {
    const Slice* slice = slice_of(options, whole.dims()[axis]);
    cuts.push_back(cut_of(slice == nullptr ? Slice{} : *slice, whole.shape()[axis]));
    shape.push_back(cuts.back().count);
    n_bytes *= cuts.back().count;
  }
  auto memory = std::make_shared_for_overwrite<std::byte[]>(n_bytes);
  if (n_bytes != 0) copy(whole, cuts, 0, 0, memory.get());
  return TensorAccess::wrap(whole.dtype(), std::move(shape), whole.dims(), std::move(memory),
                            n_bytes);
}

}  // namespace transparent_llm::internal
