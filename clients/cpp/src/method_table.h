// The table: what each method that answers a tensor is. It stands in service.proto, at the RPCs and
// at the indices of their requests.

#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "parameters.h"
#include "transparent_llm/dtype.h"

namespace transparent_llm::internal {

/// One tensor of several that are a value together.
struct Part {
  std::string name;
  std::vector<std::string_view> dims;
  /// None: that of the value.
  std::optional<Dtype> dtype = std::nullopt;
  /// It may be absent; then it may also be a scalar, if it is floating.
  bool is_optional = false;
  /// Its first axis may be shorter than that axis is.
  bool is_sparse = false;
};

struct Method {
  /// In the words of the headers: "residual_in".
  std::string name;
  /// Names of its indices, in their order, and how many of them must be there.
  std::vector<std::string> arguments;
  std::size_t least_arguments = 0;
  /// Names of the axes of its value.
  std::vector<std::string_view> dims;
  /// Of its elements; none: a floating one.
  std::optional<Dtype> dtype;
  /// The factors that it can come as, in order; without dims the tensors that it is.
  std::vector<Part> parts;
  /// The method whose value is a factor too; empty: none is.
  std::string weights;
  /// Whether it reads a run, or the model alone.
  bool of_run = false;
  /// Arguments that are no indices, in their order.
  std::vector<MethodParameter> parameters = {};

  /// Whether its elements have no floating type.
  bool has_integers() const { return dtype && !is_floating(*dtype); }
  /// Whether its value is several tensors, which always come.
  bool is_parts() const { return dims.empty() && !parts.empty(); }
  /// Names of the axes of its value; of several tensors those of all of them.
  std::vector<std::string_view> axes() const;
  /// Its part of that name among them; none if it has none.
  std::optional<std::size_t> place_of(std::string_view part) const;
  /// Its part of that name; null if it has none.
  const Part* part(std::string_view name) const;
  /// Its parameter of that name; null if it has none.
  const MethodParameter* parameter(std::string_view name) const;
};

/// All of them, in the order of service.proto.
const std::vector<Method>& methods();
/// Null for a name that is none of theirs.
const Method* find_method(std::string_view name);
/// Throws std::logic_error for a name that is none of theirs.
const Method& method_named(std::string_view name);
/// Names of all axes that a value can have, sorted.
const std::vector<std::string_view>& axes();

}  // namespace transparent_llm::internal
