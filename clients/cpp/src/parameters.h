// Arguments of a method that are no indices, as the fields of its request say them.

#pragma once

#include <google/protobuf/message.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "transparent_llm/read.h"

namespace transparent_llm::internal {

struct MethodParameter {
  std::string name;
  const google::protobuf::FieldDescriptor* field = nullptr;
  /// Of an enum, in the order of their numbers from 1 on.
  std::vector<std::string> choices;
  /// The axis of the answer that is as long as this says; empty: none is.
  std::string size_of;
  /// Whether an empty list stands for the whole axis.
  bool all_if_empty = false;
};

/// That which a field of a request is; none if it is no parameter.
std::optional<MethodParameter> parameter_of(const google::protobuf::FieldDescriptor& field);

/// Sets it in a request. Throws InvalidRequestError for another type, a choice that there is not, or a
/// number that does not fit; TooLargeError for a list that is longer than any may be.
void set_parameter(google::protobuf::Message& request, const MethodParameter& parameter,
                   const Parameter& given);

/// The length that an argument gives to its axis; `given` is null for one that is left out. None:
/// that of the whole axis.
std::optional<std::uint64_t> size_said(const MethodParameter& parameter, const Parameter* given);

}  // namespace transparent_llm::internal
