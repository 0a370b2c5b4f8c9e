// The connection of a client to its servers, which it and its copies share. Safe for many threads.

#pragma once

#include <grpcpp/client_context.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "deadline.h"
#include "memory.h"
#include "servers.h"
#include "transparent_llm/options.h"

namespace transparent_llm::internal {

/// The most that one message may have: tensors come in chunks of at most 4 MiB; the rest is tokens.
constexpr int kMaxMessageBytes = 16 << 20;

/// What holds for all attempts of one call.
struct CallTerms {
  Deadline deadline;
  std::stop_token stop_token;
  /// Value of the routing header; empty for calls that are of no run.
  std::string run_key = {};
};

class Connection {
 public:
  /// Throws as `Client::connect` does. Nothing is sent yet.
  Connection(const std::vector<std::string>& targets, Options options);

  /// All of them, for messages.
  const std::string& target() const { return target_; }
  const Options& options() const { return options_; }
  /// What lies at the other ends, for messages.
  const std::string& peer() const { return peer_; }
  /// The most bytes that one value may take.
  std::uint64_t max_bytes() const { return options_.max_bytes.value_or(half_of_memory()); }
  /// The one that calls with this routing key go to now. Throws InvalidRequestError after `close`.
  std::shared_ptr<Server> server(std::string_view run_key) const;

  /// Cancels what is under way, and lets the connection go; nothing can be called any more.
  void close();
  bool is_closed() const { return closing_.stop_requested(); }
  std::stop_token closing() const { return closing_.get_token(); }
  /// Whether the caller wants no more of this call.
  bool is_given_up(const CallTerms& terms) const {
    return is_closed() || terms.stop_token.stop_requested();
  }
  /// Throws InvalidRequestError after `close`, CancelledError if the call was given up.
  void require_open(const CallTerms& terms) const;
  /// Waits, unless the call is given up.
  void pause(Deadline::Clock::duration time, const CallTerms& terms) const;

  /// Whether a call was ever answered.
  bool has_answered() const { return has_answered_; }
  void note_answer() { has_answered_ = true; }

 private:
  Options options_;
  std::string target_;
  std::string peer_;
  mutable std::mutex mutex_;  // of those that follow, which are none after `close`
  Servers servers_;
  std::stop_source closing_;
  std::atomic<bool> has_answered_ = false;
};

/// One gRPC call: deadline, headers, and the ways to cancel it.
class Attempt {
 public:
  Attempt(const Connection& connection, const CallTerms& terms);
  grpc::ClientContext& context() { return context_; }

 private:
  struct Cancel {
    grpc::ClientContext* context;
    void operator()() const { context->TryCancel(); }
  };

  grpc::ClientContext context_;
  std::stop_callback<Cancel> by_caller_;
  std::stop_callback<Cancel> by_close_;
};

}  // namespace transparent_llm::internal
