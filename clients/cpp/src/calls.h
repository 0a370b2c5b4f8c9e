// The choke point: every call goes through `unary` or `receive`. Here are retries, the resumption
// of a broken stream, and the one place where gRPC's statuses become errors.

#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/sync_stream.h>

#include <concepts>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "assembler.h"
#include "connection.h"
#include "expected.h"
#include "transparent_llm/v1/tensor.pb.h"

namespace transparent_llm::internal {

using UnaryAttempt = std::function<grpc::Status(Server&, grpc::ClientContext*)>;

/// Makes a call, and again if a server that had answered was lost on the way: equal requests have
/// equal effects.
void call_again(Connection& connection, const CallTerms& terms, const UnaryAttempt& attempt);
/// Makes a call once.
void call_once(Connection& connection, const CallTerms& terms, const UnaryAttempt& attempt);

template <class Request, class Response>
using UnaryMethod = grpc::Status (Stub::*)(grpc::ClientContext*, const Request&, Response*);

/// Throws TooLargeError for a message that no server takes. One of more than 2 GiB gRPC would end
/// the process for.
void require_sendable(const google::protobuf::MessageLite& request);

/// Sends one message, gets one.
template <class Request, class Response>
Response unary(Connection& connection, UnaryMethod<Request, Response> method,
               const Request& request, const CallTerms& terms) {
  require_sendable(request);
  Response response;
  call_again(connection, terms, [&](Server& server, grpc::ClientContext* context) {
    return (server.stub().*method)(context, request, &response);
  });
  return response;
}

/// Whether the standard health service says SERVING.
bool is_serving(Connection& connection, const CallTerms& terms);

/// Of messages that are not parsed: gRPC takes one that cannot be for the end of the stream, and
/// then waits for that.
using MessageReader = std::unique_ptr<grpc::ClientReader<grpc::ByteBuffer>>;

/// A call that answers with tensors, and can be made again for the rest of them.
struct StreamCall {
  /// In the words of the class, for messages.
  std::string name;
  std::function<MessageReader(grpc::Channel&, grpc::ClientContext*, std::uint64_t resume_offset,
                            const std::string& etag)>
      open;
};

/// The options that every request for a tensor has.
v1::TensorOptions& options_of(google::protobuf::Message& request);

/// The call of the method that takes such requests. Throws as `require_sendable`.
StreamCall stream_call(std::string name, std::shared_ptr<google::protobuf::Message> request);

template <std::derived_from<google::protobuf::Message> Request>
StreamCall stream_call(std::string name, Request request) {
  return stream_call(std::move(name), std::make_shared<Request>(std::move(request)));
}

using Progress = std::function<void(std::uint64_t received_bytes, std::uint64_t total_bytes)>;

/// Receives a stream into a new assembler of `sink`; a broken one is taken up where it broke off.
/// `progress` may be empty.
void receive(Connection& connection, const StreamCall& call, const CallTerms& terms,
             const ExpectedTensors& expected, StreamSink& sink, std::optional<std::uint64_t> max_bytes,
             const Progress& progress);

/// A call that answers with messages, behind none of which it can be taken up.
struct MessageCall {
  /// In the words of the class, for messages.
  std::string name;
  /// Of all of it. Throws if it cannot be made again after what has come.
  std::function<std::shared_ptr<const google::protobuf::Message>()> request;
  /// Takes a message. Throws StreamError for one that is none of them.
  std::function<void(grpc::ByteBuffer&)> take;
  /// Throws StreamError if messages are missing at the end.
  std::function<void()> finish;
};

/// Receives the messages of a call, which is made again as a whole where it breaks.
void receive_messages(Connection& connection, const MessageCall& call, const CallTerms& terms);
/// Throws CancelledError or DeadlineError if nobody waits for a call any more: during long work of
/// this side.
void require_time(const Connection& connection, const CallTerms& terms);

}  // namespace transparent_llm::internal
