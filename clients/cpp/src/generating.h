// One generation under way, which holds what comes to what was asked for.

#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "transparent_llm/generation.h"
#include "transparent_llm/v1/service.pb.h"

namespace transparent_llm::internal {

class Generation {
 public:
  /// Of prompts, which are the sentences or tokens of `input`; or of `messages`, if there are any.
  /// Throws InvalidRequestError for an option that makes no sense, TooLargeError for too many stops,
  /// log-probabilities or messages.
  Generation(const v1::RunRequest& input, const std::vector<ChatMessage>& messages,
             const GenerateOptions& options);

  /// Of all of it. Throws UnavailableError if some steps have come, as no server knows how to go on
  /// behind them.
  std::shared_ptr<const v1::GenerateRequest> request() const;
  /// Takes a message of the answer. Throws StreamError for one that is not what was to come, and what
  /// `on_step` throws.
  void take(grpc::ByteBuffer& buffer);
  /// Throws StreamError if the answer has ended before its run had come.
  void require_run() const;
  /// What is to be run.
  const v1::TokenBatch& rows() const { return *rows_; }
  std::vector<GenerationStep> steps() && { return std::move(steps_); }

 private:
  NextToken next(const v1::GeneratedToken& token);
  void take_run(const v1::GeneratedRun& run);
  bool goes_on_from(const v1::TokenRow& row, std::size_t number) const;

  std::shared_ptr<v1::GenerateRequest> request_ = std::make_shared<v1::GenerateRequest>();
  std::function<void(const GenerationStep&)> on_step_;
  /// New tokens of each row.
  std::vector<std::vector<std::int32_t>> tokens_;
  /// Rows that are not finished.
  std::set<std::uint32_t> going_on_;
  std::vector<GenerationStep> steps_;
  std::optional<v1::TokenBatch> rows_;
};

}  // namespace transparent_llm::internal
