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

/// `part` is null for the value itself.
void require_dtype(const TensorHeader& header, const Method& method, const Part* part,
                   const ReadOptions& options) {
  const std::optional<Dtype> wanted =
      part != nullptr ? part->dtype : method.dtype ? method.dtype : options.dtype;
  if (wanted ? header.dtype == *wanted : is_floating(header.dtype)) return;
  refuse(header.name + " as " + std::string(name_of(header.dtype)) + ", not as " +
         (wanted ? std::string(name_of(*wanted)) : "a floating type"));
}

void require_lengths(const TensorHeader& header, const Expectation& expectation) {
  for (std::size_t axis = 0; axis < header.dims.size(); ++axis) {
    const auto whole = expectation.lengths.find(header.dims[axis]);
    if (whole == expectation.lengths.end()) continue;
    const auto slice = expectation.options.slices.find(header.dims[axis]);
    const std::uint64_t length = slice == expectation.options.slices.end()
                                     ? whole->second
                                     : count_of(slice->second, whole->second);
    if (header.shape[axis] != length) {
      refuse(header.name + " with " + std::to_string(header.shape[axis]) + " along " +
             header.dims[axis] + ", not " + std::to_string(length));
    }
  }
}

}  // namespace

void add_lengths(Lengths& lengths, const CurrentRun& run) {
  lengths["batch"] = run.tokens.shape()[0];
  for (const char* axis : {"pos", "query_pos", "key_pos", "target", "source"})
    lengths[axis] = run.tokens.shape()[1];
}

Expected::Expected(const std::vector<Expectation>& expectations) {
  for (const Expectation& one : expectations) {
    most_ += one.factored ? method_named(one.method).parts.size() : 1;
    Expectation& known = by_method_.try_emplace(one.method, one).first->second;
    known.factored = known.factored || one.factored;
  }
}

void Expected::check(const TensorHeader& header) const {
  const std::string_view name = header.name;
  const std::size_t dot = std::min(name.find('.'), name.size());
  const bool is_factor = dot != name.size();
  const auto found = by_method_.find(name.substr(0, dot));
  if (found == by_method_.end() || (is_factor && !found->second.factored))
    refuse(in_quotes(name) + ", which was not asked for");
  const Expectation& expectation = found->second;
  const Method& method = method_named(expectation.method);
  const Part* part = is_factor ? method.part(name.substr(dot + 1)) : nullptr;
  if (is_factor && part == nullptr) refuse(in_quotes(name) + ", which is not a factor");
  const bool is_scalar = part != nullptr && part->is_optional && part->dtype &&
                         is_floating(*part->dtype) && header.dims.empty();
  if (!is_scalar) require_dims(header, part != nullptr ? part->dims : method.dims);
  require_dtype(header, method, part, expectation.options);
  require_lengths(header, expectation);
}

}  // namespace transparent_llm::internal
