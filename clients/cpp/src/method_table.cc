#include "method_table.h"

#include <algorithm>
#include <cctype>
#include <set>
#include <stdexcept>

#include "transparent_llm/v1/method.pb.h"
#include "transparent_llm/v1/service.pb.h"
#include "wire_dtype.h"

namespace transparent_llm::internal {
namespace {

std::string snake_case(const std::string& rpc) {
  std::string name;
  for (const char letter : rpc) {
    const auto character = static_cast<unsigned char>(letter);
    if (std::isupper(character) && !name.empty()) name += '_';
    name += static_cast<char>(std::tolower(character));
  }
  return name;
}

/// Views of a text in a descriptor, which stays.
std::vector<std::string_view> axes_of(std::string_view dims) {
  std::vector<std::string_view> found;
  while (!dims.empty()) {
    const std::size_t end = std::min(dims.find(' '), dims.size());
    if (end > 0) found.push_back(dims.substr(0, end));
    dims.remove_prefix(std::min(end + 1, dims.size()));
  }
  return found;
}

Method method_of(const google::protobuf::MethodDescriptor& rpc) {
  const v1::MethodSpec& spec = rpc.options().GetExtension(v1::method);
  const google::protobuf::Descriptor& request = *rpc.input_type();
  Method made{.name = snake_case(std::string(rpc.name())),
              .arguments = {},
              .dims = axes_of(spec.dims()),
              .dtype = from_wire(spec.dtype()),
              .parts = {},
              .weights = spec.weights(),
              .of_run = request.FindFieldByName("run_id") != nullptr,
              .parameters = {}};
  for (const v1::PartSpec& part : spec.parts())
    made.parts.push_back({part.name(), axes_of(part.dims()), from_wire(part.dtype()),
                          part.optional(), part.sparse()});
  for (int i = 0; i < request.field_count(); ++i) {
    const google::protobuf::FieldDescriptor& field = *request.field(i);
    if (const auto parameter = parameter_of(field)) made.parameters.push_back(*parameter);
    if (!field.options().HasExtension(v1::index)) continue;
    made.arguments.emplace_back(field.name());
    if (!field.options().GetExtension(v1::index).optional()) ++made.least_arguments;
  }
  return made;
}

}  // namespace

std::vector<std::string_view> Method::axes() const {
  if (!is_parts()) return dims;
  std::vector<std::string_view> found;
  for (const Part& part : parts) {
    for (const std::string_view axis : part.dims)
      if (std::find(found.begin(), found.end(), axis) == found.end()) found.push_back(axis);
  }
  return found;
}

std::optional<std::size_t> Method::place_of(std::string_view name) const {
  const auto found = std::find_if(parts.begin(), parts.end(),
                                  [name](const Part& part) { return part.name == name; });
  if (found == parts.end()) return std::nullopt;
  return static_cast<std::size_t>(found - parts.begin());
}

const Part* Method::part(std::string_view name) const {
  const auto place = place_of(name);
  return place ? &parts[*place] : nullptr;
}

const MethodParameter* Method::parameter(std::string_view name) const {
  const auto found =
      std::find_if(parameters.begin(), parameters.end(),
                   [name](const MethodParameter& parameter) { return parameter.name == name; });
  return found == parameters.end() ? nullptr : &*found;
}

const std::vector<Method>& methods() {
  static const std::vector<Method> kMethods = [] {
    std::vector<Method> made;
    const auto& service = *v1::FetchItem::descriptor()->file()->service(0);
    for (int i = 0; i < service.method_count(); ++i) {
      const google::protobuf::MethodDescriptor& rpc = *service.method(i);
      if (rpc.server_streaming() && rpc.options().HasExtension(v1::method))
        made.push_back(method_of(rpc));
    }
    return made;
  }();
  return kMethods;
}

const Method* find_method(std::string_view name) {
  const auto found = std::find_if(methods().begin(), methods().end(),
                                  [name](const Method& method) { return method.name == name; });
  return found == methods().end() ? nullptr : &*found;
}

const Method& method_named(std::string_view name) {
  if (const Method* found = find_method(name)) return *found;
  throw std::logic_error("there is no method " + std::string(name));
}

const std::vector<std::string_view>& axes() {
  static const std::vector<std::string_view> kAxes = [] {
    std::set<std::string_view> names;
    for (const Method& method : methods()) {
      const auto of_method = method.axes();
      names.insert(of_method.begin(), of_method.end());
    }
    return std::vector<std::string_view>(names.begin(), names.end());
  }();
  return kAxes;
}

}  // namespace transparent_llm::internal
