#include "calls.h"

#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>

#include "cuts.h"
#include "failure.h"
#include "transparent_llm/client/status.pb.h"

namespace transparent_llm::internal {
namespace {

grpc::Status attempted(Connection& connection, const CallTerms& terms,
                       const UnaryAttempt& attempt) {
  connection.require_open(terms);
  Attempt one(connection, terms);
  const grpc::Status status = attempt(&one.context());
  if (status.ok()) connection.note_answer();
  return status;
}

/// Ends a stream that nobody takes to its end, so that the server hears of it.
class OpenStream {
 public:
  OpenStream(grpc::ClientContext& context, ChunkReader reader)
      : context_(context), reader_(std::move(reader)) {}
  OpenStream(const OpenStream&) = delete;
  OpenStream& operator=(const OpenStream&) = delete;
  ~OpenStream() {
    if (is_finished_) return;
    context_.TryCancel();
    reader_->Finish();
  }

  bool read(v1::TensorChunk* chunk) { return reader_->Read(chunk); }
  grpc::Status finish() {
    is_finished_ = true;
    return reader_->Finish();
  }

 private:
  grpc::ClientContext& context_;
  ChunkReader reader_;
  bool is_finished_ = false;
};

/// One attempt to receive what is missing.
grpc::Status received(Connection& connection, const StreamCall& call, const CallTerms& terms,
                      Assembler& assembler, const Progress& progress) {
  connection.require_open(terms);
  Attempt attempt(connection, terms);
  OpenStream stream(attempt.context(), call.open(*connection.stub(), &attempt.context(),
                                                 assembler.received(), assembler.etag()));
  v1::TensorChunk chunk;
  while (stream.read(&chunk)) {
    assembler.add(chunk);
    if (progress) progress(assembler.received(), assembler.total_bytes());
  }
  return stream.finish();
}

}  // namespace

void call_again(Connection& connection, const CallTerms& terms, const UnaryAttempt& attempt) {
  Cuts cuts(connection, terms);
  for (;;) {
    const grpc::Status status = attempted(connection, terms, attempt);
    if (status.ok()) return;
    cuts.wait_out(failure_of(status, connection.target()));
  }
}

void call_once(Connection& connection, const CallTerms& terms, const UnaryAttempt& attempt) {
  const grpc::Status status = attempted(connection, terms, attempt);
  if (status.ok()) return;
  if (connection.is_given_up(terms)) throw CancelledError("the call was cancelled");
  failure_of(status, connection.target()).raise();
}

bool is_serving(Connection& connection, const CallTerms& terms) {
  grpc::TemplatedGenericStub<client::HealthCheckRequest, client::HealthCheckResponse> stub(
      connection.channel());
  const client::HealthCheckRequest request;
  client::HealthCheckResponse response;
  call_once(connection, terms, [&](grpc::ClientContext* context) {
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
  });
  return response.status() == client::HealthCheckResponse::SERVING;
}

void receive(Connection& connection, const StreamCall& call, const CallTerms& terms,
             StreamSink& sink, std::optional<std::uint64_t> max_bytes, const Progress& progress) {
  Assembler assembler(sink, max_bytes);
  Cuts cuts(connection, terms);
  try {
    for (;;) {
      const std::uint64_t before = assembler.received();
      const grpc::Status status = received(connection, call, terms, assembler, progress);
      if (status.ok()) return assembler.finish();
      cuts.wait_out(failure_of(status, connection.target()),
                    {assembler.has_begun(), assembler.received(), assembler.total_bytes()},
                    assembler.received() > before);
      assembler.resume();
    }
  } catch (const StreamError& error) {
    throw InternalError(connection.target() + " broke the protocol in " + call.name + ": " +
                        error.what());
  }
}

}  // namespace transparent_llm::internal
