#include "expected.h"

#include <algorithm>
#include <optional>
#include <span>

#include "legible.h"
#include "method_table.h"
#include "slices.h"
#include "transparent_llm/errors.h"

namespace transparent_llm::internal {
namespace {

/// The axis before those of a method that was asked of several vectors at once.
constexpr std::string_view kRows = "n";

/// Method and part of a tensor's name; no part if it is the value itself.
struct Named {
  explicit Named(std::string_view name) : method(name.substr(0, name.find('.'))) {
    if (method.size() != name.size()) part = name.substr(method.size() + 1);
  }
  std::string_view method;
  std::optional<std::string_view> part;
};

[[noreturn]] void refuse(const std::string& what) {
  throw InternalError("the server sent " + what);
}

std::string joined(std::span<const std::string_view> dims) {
  std::string text;
  for (const std::string_view name : dims) text += (text.empty() ? "" : " ") + std::string(name);
  return text;
}

void require_dims(const TensorHeader& header, std::span<const std::string_view> dims) {
  if (std::equal(header.dims.begin(), header.dims.end(), dims.begin(), dims.end())) return;
  const std::vector<std::string_view> sent(header.dims.begin(), header.dims.end());
  refuse(header.name + " with the axes " + in_quotes(joined(sent)) + ", not " + joined(dims));
}

std::vector<std::string_view> dims_of(const Expectation& expectation) {
  std::vector<std::string_view> dims = expectation.method->dims;
  if (expectation.rows > 0) dims.insert(dims.begin(), kRows);
  return dims;
}

/// `part` is null for the value itself.
void require_dtype(const TensorHeader& header, const Method& method, const Part* part,
                   const ReadOptions& options) {
  std::optional<Dtype> wanted = method.dtype ? method.dtype : options.dtype;
  if (part != nullptr && part->dtype) wanted = part->dtype;
  if (wanted ? header.dtype == *wanted : is_floating(header.dtype)) return;
  refuse(header.name + " as " + std::string(name_of(header.dtype)) + ", not as " +
         (wanted ? std::string(name_of(*wanted)) : "a floating type"));
}

/// An axis of a whole length, cut.
std::uint64_t cut_length(const Expectation& expectation, std::string_view axis,
                         std::uint64_t length) {
  const Slice* slice = slice_of(expectation.options, axis);
  return slice == nullptr ? length : count_of(*slice, length);
}

/// The length that a read says of an axis: that which was sent, if any of the reads says it. None if
/// no read says one.
std::optional<std::uint64_t> sized(const Expectation& expectation, std::string_view axis,
                                   std::uint64_t sent) {
  std::optional<std::uint64_t> length;
  for (const Sizes& sizes : expectation.sizes) {
    const auto found = sizes.find(axis);
    if (found == sizes.end()) continue;
    length = cut_length(expectation, axis, found->second);
    if (length == sent) break;
  }
  return length;
}

/// Cut. None where it is not known.
std::optional<std::uint64_t> length_of(const Expectation& expectation, std::string_view axis,
                                       std::uint64_t sent) {
  if (const auto length = sized(expectation, axis, sent)) return length;
  const auto whole = expectation.lengths.find(axis);
  if (whole == expectation.lengths.end()) return std::nullopt;
  return cut_length(expectation, axis, whole->second);
}

void require_lengths(const TensorHeader& header, const Part* part,
                     const Expectation& expectation) {
  for (std::size_t axis = 0; axis < header.dims.size(); ++axis) {
    const auto known = length_of(expectation, header.dims[axis], header.shape[axis]);
    if (!known) continue;
    const std::uint64_t length = *known;
    const bool may_be_shorter = part != nullptr && part->is_sparse && axis == 0;
    if (may_be_shorter ? header.shape[axis] > length : header.shape[axis] != length) {
      refuse(header.name + " with " + std::to_string(header.shape[axis]) + " along " +
             header.dims[axis] + ", not " + std::to_string(length));
    }
  }
}

void require_sizes(const Expectation& expectation, const std::string& name,
                   std::span<const std::string> dims, std::span<const std::size_t> shape) {
  for (std::size_t axis = 0; axis < dims.size(); ++axis) {
    const std::uint64_t sent = shape[axis];
    const auto length = sized(expectation, dims[axis], sent);
    if (length && *length != sent)
      refuse(name + " of " + expectation.method->name + " with " + std::to_string(sent) +
             " along " + dims[axis] + ", not " + std::to_string(*length));
  }
}

}  // namespace

void add_lengths(Lengths& lengths, const CurrentRun& run) {
  lengths["batch"] = run.tokens.shape()[0];
  for (const char* axis : {"pos", "query_pos", "key_pos", "target", "source"})
    lengths[axis] = run.tokens.shape()[1];
}

void add_sizes(Expectation& expectation, const Read& read) {
  Sizes sizes;
  for (const MethodParameter& parameter : expectation.method->parameters) {
    if (parameter.size_of.empty()) continue;
    const auto given = read.parameters().find(parameter.name);
    const auto said =
        size_said(parameter, given == read.parameters().end() ? nullptr : &given->second);
    const auto whole = expectation.lengths.find(parameter.size_of);
    if (said)
      sizes[parameter.size_of] = *said;
    else if (whole != expectation.lengths.end())
      sizes[parameter.size_of] = whole->second;
  }
  if (!sizes.empty()) expectation.sizes.push_back(std::move(sizes));
}

void require_own_sizes(const Expectation& expectation, const Parts& came) {
  for (const auto& [name, tensor] : came)
    require_sizes(expectation, name, tensor.dims(), tensor.shape());
}

void require_own_sizes(const Expectation& expectation,
                       const std::map<std::string, TensorHeader>& headers) {
  for (const auto& [name, header] : headers)
    require_sizes(expectation, name, header.dims, header.shape);
}

Expected::Expected(const std::vector<Expectation>& expectations) {
  for (const Expectation& one : expectations) {
    most_ += one.factored || one.method->is_parts() ? one.method->parts.size() : 1;
    Expectation& known = by_method_.try_emplace(one.method->name, one).first->second;
    for (const Sizes& sizes : one.sizes)
      if (std::find(known.sizes.begin(), known.sizes.end(), sizes) == known.sizes.end())
        known.sizes.push_back(sizes);
    known.factored = known.factored || one.factored;
    if (one.rows > 0) known.lengths[std::string(kRows)] = one.rows;
  }
}

void Expected::check(const TensorHeader& header) const {
  const Named name(header.name);
  const auto found = by_method_.find(name.method);
  if (found == by_method_.end()) refuse(in_quotes(header.name) + ", which was not asked for");
  const Expectation& expectation = found->second;
  const Method& method = *expectation.method;
  const bool comes_in_parts = method.is_parts() || (name.part && expectation.factored);
  if (name.part.has_value() != comes_in_parts)
    refuse(in_quotes(header.name) + ", which was not asked for");
  const Part* part = name.part ? method.part(*name.part) : nullptr;
  if (name.part && part == nullptr) refuse(in_quotes(header.name) + ", which is none of its parts");
  const bool is_scalar = part != nullptr && part->is_optional && part->dtype &&
                         is_floating(*part->dtype) && header.dims.empty();
  if (!is_scalar) require_dims(header, part != nullptr ? part->dims : dims_of(expectation));
  require_dtype(header, method, part, expectation.options);
  require_lengths(header, part, expectation);
}

bool Expected::continues(const TensorHeader& before, const TensorHeader& header) const {
  const Named name(header.name), last(before.name);
  const auto found = by_method_.find(name.method);
  if (!name.part || !last.part || name.method != last.method || found == by_method_.end())
    return false;
  const Method& method = *found->second.method;
  return method.is_parts() && method.place_of(*name.part).value_or(0) > 0;
}

}  // namespace transparent_llm::internal
