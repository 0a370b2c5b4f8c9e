#include "calls.h"

#include <google/protobuf/descriptor.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>

#include <optional>
#include <stdexcept>

#include "retries.h"
#include "failure.h"
#include "transparent_llm/client/status.pb.h"

namespace transparent_llm::internal {
namespace {

/// What came of one attempt; nothing where it went well.
using Outcome = std::optional<Failure>;

Outcome outcome(Server& server, const grpc::Status& status) {
  return status.ok() ? Outcome() : server.failed(status);
}

Outcome attempted(Connection& connection, const CallTerms& terms, const UnaryAttempt& attempt) {
  connection.require_open(terms);
  const std::shared_ptr<Server> server = connection.server(terms.run_key);
  Attempt one(connection, terms);
  const grpc::Status status = attempt(*server, &one.context());
  if (status.ok()) connection.note_answer();
  return outcome(*server, status);
}

/// Ends a stream that nobody takes to its end, so that the server hears of it.
class OpenStream {
 public:
  OpenStream(grpc::ClientContext& context, MessageReader reader)
      : context_(context), reader_(std::move(reader)) {}
  OpenStream(const OpenStream&) = delete;
  OpenStream& operator=(const OpenStream&) = delete;
  ~OpenStream() {
    if (is_finished_) return;
    context_.TryCancel();
    reader_->Finish();
  }

  bool read(grpc::ByteBuffer* message) { return reader_->Read(message); }
  grpc::Status finish() {
    is_finished_ = true;
    return reader_->Finish();
  }

 private:
  grpc::ClientContext& context_;
  MessageReader reader_;
  bool is_finished_ = false;
};

/// One attempt to receive what is missing.
Outcome received(Connection& connection, const StreamCall& call, const CallTerms& terms,
                 Assembler& assembler, const Progress& progress) {
  connection.require_open(terms);
  const std::shared_ptr<Server> server = connection.server(terms.run_key);
  Attempt attempt(connection, terms);
  OpenStream stream(attempt.context(), call.open(server->channel(), &attempt.context(),
                                                 assembler.received(), assembler.etag()));
  v1::TensorChunk chunk;
  for (grpc::ByteBuffer message; stream.read(&message);) {
    connection.note_answer();
    if (!grpc::SerializationTraits<v1::TensorChunk>::Deserialize(&message, &chunk).ok())
      throw StreamError("a message that is not a TensorChunk");
    assembler.add(chunk);
    if (progress) progress(assembler.received(), assembler.total_bytes());
  }
  return outcome(*server, stream.finish());
}

/// The path of the method that takes such requests.
std::string path_of(const google::protobuf::Descriptor& request) {
  const auto& service = *v1::FetchItem::descriptor()->file()->service(0);
  for (int index = 0; index < service.method_count(); ++index) {
    const google::protobuf::MethodDescriptor& method = *service.method(index);
    if (method.input_type() == &request) return "/" + service.full_name() + "/" + method.name();
  }
  throw std::logic_error("no method takes a " + request.name());
}

MessageReader opened(grpc::Channel& channel, const std::string& path, grpc::ClientContext* context,
                     const google::protobuf::Message& request) {
  using grpc::internal::RpcMethod;
  const RpcMethod method(path.c_str(), RpcMethod::SERVER_STREAMING);
  return MessageReader(grpc::internal::ClientReaderFactory<grpc::ByteBuffer>::Create(
      &channel, method, context, request));
}

[[noreturn]] void raise_broken(const Connection& connection, const std::string& name,
                               const StreamError& error) {
  throw InternalError(connection.target() + " broke the protocol in " + name + ": " +
                      error.what());
}

/// One attempt to receive all messages; counts those that came.
Outcome received(Connection& connection, const MessageCall& call, const CallTerms& terms,
                 std::uint64_t& count) {
  connection.require_open(terms);
  const auto request = call.request();
  require_sendable(*request);
  const std::shared_ptr<Server> server = connection.server(terms.run_key);
  Attempt attempt(connection, terms);
  const std::string path = path_of(*request->GetDescriptor());
  OpenStream stream(attempt.context(), opened(server->channel(), path, &attempt.context(), *request));
  for (grpc::ByteBuffer message; stream.read(&message); ++count) {
    connection.note_answer();
    call.take(message);
  }
  return outcome(*server, stream.finish());
}

}  // namespace

void require_sendable(const google::protobuf::MessageLite& request) {
  const std::size_t size = request.ByteSizeLong();
  if (size <= kMaxMessageBytes) return;
  throw TooLargeError("a message was too large: " + std::to_string(size) + " bytes, of " +
                          std::to_string(kMaxMessageBytes) + " that can be sent; send less at once",
                      {.reason = {},
                       .metadata = {{"needed", std::to_string(size)},
                                    {"allowed", std::to_string(kMaxMessageBytes)}},
                       .retry_after = {}});
}

v1::TensorOptions& options_of(google::protobuf::Message& request) {
  const auto* field = request.GetDescriptor()->FindFieldByName("options");
  return static_cast<v1::TensorOptions&>(
      *request.GetReflection()->MutableMessage(&request, field));
}

StreamCall stream_call(std::string name, std::shared_ptr<google::protobuf::Message> request) {
  require_sendable(*request);
  return {std::move(name), [path = path_of(*request->GetDescriptor()), request](
                               grpc::Channel& channel, grpc::ClientContext* context,
                               std::uint64_t resume_offset, const std::string& etag) {
            options_of(*request).set_resume_offset(resume_offset);
            options_of(*request).set_etag(etag);
            return opened(channel, path, context, *request);
          }};
}

void call_again(Connection& connection, const CallTerms& terms, const UnaryAttempt& attempt) {
  Retries retries(connection, terms);
  for (;;) {
    const Outcome failure = attempted(connection, terms, attempt);
    if (!failure) return;
    retries.backoff(*failure);
  }
}

void call_once(Connection& connection, const CallTerms& terms, const UnaryAttempt& attempt) {
  const Outcome failure = attempted(connection, terms, attempt);
  if (!failure) return;
  if (connection.is_given_up(terms)) throw CancelledError("the call was cancelled");
  failure->raise();
}

bool is_serving(Connection& connection, const CallTerms& terms) {
  using HealthStub =
      grpc::TemplatedGenericStub<client::HealthCheckRequest, client::HealthCheckResponse>;
  const client::HealthCheckRequest request;
  client::HealthCheckResponse response;
  const auto check = [&](Server& server, grpc::ClientContext* context) {
    HealthStub stub(server.shared_channel());
    grpc::Status status;
    grpc::CompletionQueue queue;
    const auto call =
        stub.PrepareUnaryCall(context, "/grpc.health.v1.Health/Check", request, &queue);
    call->StartCall();
    call->Finish(&response, &status, nullptr);
    queue.Shutdown();
    void* tag = nullptr;
    for (bool ok = false; queue.Next(&tag, &ok);)
      continue;  // until the call is done and the queue empty
    return status;
  };
  try {
    call_once(connection, terms, check);
  } catch (const UnavailableError&) {
    return false;
  } catch (const DeadlineError&) {
    return false;
  }
  return response.status() == client::HealthCheckResponse::SERVING;
}

void require_time(const Connection& connection, const CallTerms& terms) {
  if (connection.is_given_up(terms)) throw CancelledError("the call was cancelled");
  if (terms.deadline.is_within(Deadline::Clock::duration::zero()))
    throw DeadlineError(
        "the call did not finish within its time; raise the timeout if the work is long");
}

void receive(Connection& connection, const StreamCall& call, const CallTerms& terms,
             const ExpectedTensors& expected, StreamSink& sink, std::optional<std::uint64_t> max_bytes,
             const Progress& progress) {
  Assembler assembler(
      sink, max_bytes, [&expected](const TensorHeader& header) { expected.check(header); },
      [&expected](const TensorHeader& before, const TensorHeader& header) {
        return expected.continues(before, header);
      });
  Retries retries(connection, terms);
  try {
    for (;;) {
      const std::uint64_t before = assembler.received();
      const Outcome failure = received(connection, call, terms, assembler, progress);
      if (!failure) return assembler.finish();
      retries.backoff(*failure,
                    {assembler.has_begun(), assembler.received(), assembler.total_bytes()},
                    assembler.received() > before);
      assembler.resume();
    }
  } catch (const StreamError& error) {
    raise_broken(connection, call.name, error);
  }
}

void receive_messages(Connection& connection, const MessageCall& call, const CallTerms& terms) {
  Retries retries(connection, terms);
  try {
    for (std::uint64_t count = 0;;) {
      const std::uint64_t before = count;
      const Outcome failure = received(connection, call, terms, count);
      if (!failure) return call.finish();
      retries.backoff(*failure, {.has_begun = count > 0}, count > before);
    }
  } catch (const StreamError& error) {
    raise_broken(connection, call.name, error);
  }
}

}  // namespace transparent_llm::internal
