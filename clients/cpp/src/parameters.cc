#include "parameters.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <limits>

#include "legible.h"
#include "run_input.h"
#include "transparent_llm/errors.h"
#include "transparent_llm/v1/method.pb.h"

namespace transparent_llm::internal {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr std::size_t kMostNumbers = 4096;
/// Bytes of a text.
constexpr std::size_t kMostName = 1024;

/// Names of an enum's values but the first, which says what they all begin with.
std::vector<std::string> choices_of(const FieldDescriptor& field) {
  std::vector<std::string> names;
  if (field.cpp_type() != FieldDescriptor::CPPTYPE_ENUM) return names;
  const auto& kind = *field.enum_type();
  const std::size_t prefix = std::string(kind.value(0)->name()).rfind("UNSPECIFIED");
  for (int i = 1; i < kind.value_count(); ++i) {
    std::string name = std::string(kind.value(i)->name()).substr(prefix);
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
    names.push_back(std::move(name));
  }
  return names;
}

[[noreturn]] void refuse(const MethodParameter& parameter, const std::string& wanted) {
  throw InvalidRequestError(parameter.name + " must be " + wanted,
                            {.reason = {},
                             .metadata = {{"argument", parameter.name}},
                             .retry_after = {}});
}

Index require_within(const MethodParameter& parameter, Index number, Index least, Index most) {
  if (number >= least && number <= most) return number;
  throw InvalidRequestError(
      parameter.name + " " + std::to_string(number) + " is out of range: " +
          std::to_string(least) + " to " + std::to_string(most) + " are numbers that it can be",
      {.reason = {},
       .metadata = {{"argument", parameter.name}, {"got", std::to_string(number)}},
       .retry_after = {}});
}

void set_list(Message& request, const MethodParameter& parameter,
              const std::vector<Index>& numbers) {
  using Limits = std::numeric_limits<std::int32_t>;
  if (numbers.size() > kMostNumbers) {
    throw TooLargeError(parameter.name + " has " + std::to_string(numbers.size()) +
                            " numbers, at most " + std::to_string(kMostNumbers) +
                            " are taken; ask several times",
                        {.reason = {},
                         .metadata = {{"needed", std::to_string(numbers.size())},
                                      {"allowed", std::to_string(kMostNumbers)}},
                         .retry_after = {}});
  }
  for (const Index number : numbers) {
    const Index checked = require_within(parameter, number, Limits::min(), Limits::max());
    request.GetReflection()->AddInt32(&request, parameter.field,
                                      static_cast<std::int32_t>(checked));
  }
}

void set_choice(Message& request, const MethodParameter& parameter, const Parameter& given) {
  const auto* number = std::get_if<Index>(&given);
  if (number != nullptr) {
    require_within(parameter, *number, 0, std::numeric_limits<std::int32_t>::max());
    request.GetReflection()->SetEnumValue(&request, parameter.field, static_cast<int>(*number));
    return;
  }
  const auto* name = std::get_if<std::string>(&given);
  const auto& choices = parameter.choices;
  const auto found = name == nullptr ? choices.end() : std::find(choices.begin(), choices.end(), *name);
  if (found == choices.end()) {
    std::string known;
    for (const std::string& one : choices) known += (known.empty() ? "" : ", ") + one;
    refuse(parameter, "one of " + known + (name == nullptr ? "" : ", got " + in_quotes(*name)));
  }
  request.GetReflection()->SetEnumValue(&request, parameter.field,
                                        static_cast<int>(found - choices.begin()) + 1);
}

}  // namespace

std::optional<MethodParameter> parameter_of(const FieldDescriptor& field) {
  if (!field.options().HasExtension(v1::parameter)) return std::nullopt;
  const v1::ParameterSpec& spec = field.options().GetExtension(v1::parameter);
  return MethodParameter{.name = std::string(field.name()),
                         .field = &field,
                         .choices = choices_of(field),
                         .size_of = spec.size_of(),
                         .all_if_empty = spec.all_if_empty()};
}

void set_parameter(Message& request, const MethodParameter& parameter, const Parameter& given) {
  const auto& reflection = *request.GetReflection();
  if (parameter.field->is_repeated()) {
    const auto* numbers = std::get_if<std::vector<Index>>(&given);
    if (numbers == nullptr) refuse(parameter, "a list of integers");
    return set_list(request, parameter, *numbers);
  }
  switch (parameter.field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_ENUM:
      return set_choice(request, parameter, given);
    case FieldDescriptor::CPPTYPE_BOOL: {
      const auto* flag = std::get_if<bool>(&given);
      if (flag == nullptr) refuse(parameter, "true or false");
      return reflection.SetBool(&request, parameter.field, *flag);
    }
    case FieldDescriptor::CPPTYPE_DOUBLE: {
      const auto* number = std::get_if<double>(&given);
      if (number == nullptr || !std::isfinite(*number)) refuse(parameter, "a finite number");
      return reflection.SetDouble(&request, parameter.field, *number);
    }
    case FieldDescriptor::CPPTYPE_STRING: {
      const auto* text = std::get_if<std::string>(&given);
      if (text == nullptr || text->size() > kMostName)
        refuse(parameter, "a text of at most " + std::to_string(kMostName) + " bytes");
      require_utf8(parameter.name, *text, {{"argument", parameter.name}});
      return reflection.SetString(&request, parameter.field, *text);
    }
    default: {
      const auto* number = std::get_if<Index>(&given);
      if (number == nullptr) refuse(parameter, "an integer");
      const Index checked =
          require_within(parameter, *number, 0, std::numeric_limits<std::uint32_t>::max());
      return reflection.SetUInt32(&request, parameter.field, static_cast<std::uint32_t>(checked));
    }
  }
}

std::optional<std::uint64_t> size_said(const MethodParameter& parameter, const Parameter* given) {
  std::uint64_t size = 0;
  if (given != nullptr) {
    if (const auto* numbers = std::get_if<std::vector<Index>>(given)) size = numbers->size();
    if (const auto* number = std::get_if<Index>(given))
      size = static_cast<std::uint64_t>(std::max<Index>(*number, 0));
  }
  if (size == 0 && parameter.all_if_empty) return std::nullopt;
  return size;
}

}  // namespace transparent_llm::internal
