#include "methods.h"

#include <google/protobuf/message.h>

#include <limits>
#include <memory>
#include <optional>
#include <utility>

#include "method_table.h"
#include "slices.h"
#include "transparent_llm/errors.h"

namespace transparent_llm::internal {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

/// The field of a FetchItem that holds the request of a read.
const FieldDescriptor& field_of(const Read& read) {
  return *v1::FetchItem::descriptor()->FindFieldByName(std::string(read.method()));
}

void fill_request(Message& request, const Asked& asked, const ReadOptions& options) {
  const Method& method = method_named(asked.read.method());
  for (std::size_t i = 0; i < method.arguments.size(); ++i) {
    const std::string& name = method.arguments[i];
    if (const std::optional<Index>& index = asked.read.indices()[i])
      request.GetReflection()->SetInt32(&request, request.GetDescriptor()->FindFieldByName(name),
                                        to_int32(name.c_str(), *index));
  }
  for (const auto& [name, given] : asked.read.parameters())
    set_parameter(request, *method.parameter(name), given);
  v1::TensorOptions& wire = options_of(request);
  fill(wire, method.axes(), options, !method.has_integers());
  if (asked.factored) wire.set_encoding(v1::ENCODING_FACTORED);
}

void fill_item(v1::FetchItem& item, const Asked& asked, const ReadOptions& options) {
  fill_request(*item.GetReflection()->MutableMessage(&item, &field_of(asked.read)), asked, options);
}

}  // namespace

std::int32_t to_int32(const char* axis, Index index) {
  if (index >= std::numeric_limits<std::int32_t>::min() &&
      index <= std::numeric_limits<std::int32_t>::max()) {
    return static_cast<std::int32_t>(index);
  }
  throw IndexOutOfRangeError(
      std::string(axis) + " " + std::to_string(index) + " is out of range: no axis is that long",
      {.reason = {},
       .metadata = {{"axis", axis}, {"got", std::to_string(index)}},
       .retry_after = {}});
}

std::string words_of(const Read& read, const ReadOptions& options) {
  v1::FetchItem item;
  fill_item(item, {read, false}, options);
  return item.SerializeAsString();
}

StreamCall call_of(const std::string& run_id, const Asked& asked, const ReadOptions& options) {
  const Message* kind = google::protobuf::MessageFactory::generated_factory()->GetPrototype(
      field_of(asked.read).message_type());
  std::shared_ptr<Message> request(kind->New());
  const auto* target = request->GetDescriptor()->FindFieldByName("run_id");
  request->GetReflection()->SetString(request.get(), target, run_id);
  fill_request(*request, asked, options);
  return stream_call(std::string(asked.read.method()), std::move(request));
}

StreamCall fetch_call(const std::string& run_id, std::span<const Asked> asked,
                      const ReadOptions& options) {
  v1::FetchRequest request;
  request.set_run_id(run_id);
  for (const Asked& one : asked) fill_item(*request.add_items(), one, options);
  return stream_call("fetch", std::move(request));
}

v1::PlanRequest plan_request(const std::string& run_id, std::span<const Asked> asked,
                             const ReadOptions& options) {
  v1::PlanRequest request;
  request.set_run_id(run_id);
  for (const Asked& one : asked) fill_item(*request.add_items(), one, options);
  return request;
}

}  // namespace transparent_llm::internal
