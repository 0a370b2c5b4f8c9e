#include "offline.h"

#include <limits>
#include <optional>
#include <utility>

#include "assembler.h"
#include "failure.h"
#include "sinks.h"

namespace driver {
namespace {

using namespace transparent_llm;
using internal::Assembler;
using internal::StreamError;

void add_all(Assembler& assembler, const Json& messages) {
  for (const Json& message : messages) {
    v1::TensorChunk chunk;
    if (!chunk.ParseFromString(decode_base64(message.get<std::string>()))) {
      throw StreamError("a message that is not a TensorChunk");
    }
    assembler.add(chunk);
  }
}

/// The tensors of a stream and of those that took it up; what they were asked for goes to
/// `resumes`.
std::vector<internal::NamedTensor> collected(const Json& request, Json& resumes) {
  std::optional<std::uint64_t> max_bytes;
  if (const Json most = request.value("max_bytes", Json()); !most.is_null())
    max_bytes = most.get<std::uint64_t>();
  internal::Collector collector(std::numeric_limits<std::size_t>::max());
  Assembler assembler(collector, max_bytes);
  const Json& streams = request.at("streams");
  for (std::size_t i = 0; i < streams.size(); ++i) {
    if (i != 0) {
      assembler.resume();
      resumes.push_back({{"offset", assembler.received()}, {"etag", assembler.etag()}});
    }
    add_all(assembler, streams[i]);
  }
  assembler.finish();
  return std::move(collector).tensors();
}

}  // namespace

Json decode(const Json& request) {
  Json resumes = Json::array();
  Json tensors = Json::array();
  try {
    for (const internal::NamedTensor& one : collected(request, resumes)) {
      Json tensor = to_json(one.tensor);
      tensor["name"] = one.name;
      tensors.push_back(std::move(tensor));
    }
  } catch (const StreamError& error) {
    throw InternalError(std::string("the stream broke the protocol: ") + error.what());
  }
  return {{"tensors", tensors}, {"resumes", resumes}};
}

Json decode_error(const Json& request) {
  const Json details = request.value("details", Json());
  const std::string bytes = details.is_null() ? "" : decode_base64(details.get<std::string>());
  const grpc::Status status(static_cast<grpc::StatusCode>(request.at("code").get<int>()),
                            request.value("message", Json("")).get<std::string>(), bytes);
  try {
    internal::failure_of(status, "the server").raise();
  } catch (const Error& error) {
    return {{"error", to_json(error)}};
  }
}

}  // namespace driver
