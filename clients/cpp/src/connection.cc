#include "connection.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "transparent_llm/errors.h"

namespace transparent_llm::internal {
namespace {

constexpr const char* kRunKeyHeader = "x-transparent-llm-run-key";
void require_consistent(const Options& options) {
  const bool is_sendable = std::all_of(options.token.begin(), options.token.end(),
                                       [](char sign) { return sign >= ' ' && sign <= '~'; });
  if (!is_sendable) {
    throw InvalidRequestError(
        "the token contains characters that cannot be sent in a header: perhaps a trailing line "
        "break, or non-ASCII letters");
  }
  if (options.reconnect < std::chrono::milliseconds::zero())
    throw InvalidRequestError("reconnect is below 0: it is how long a lost server is waited for");
  if (options.max_bytes == 0)
    throw InvalidRequestError("max_bytes is 0: it must be 1 or more, or absent");
  if (options.tls_cert.empty() != options.tls_key.empty()) {
    throw InvalidRequestError(
        "a client certificate requires both tls_cert and tls_key: its file and its key file");
  }
  if (!options.tls_cert.empty() && options.tls_ca.empty()) {
    throw InvalidRequestError(
        "a client certificate is sent over TLS only: set tls_ca to the server's CA file");
  }
}

InvalidRequestError closed() {
  return InvalidRequestError("this client is closed; make a new one with Client::connect");
}

}  // namespace

Connection::Connection(const std::vector<std::string>& targets, Options options)
    : options_(std::move(options)) {
  require_consistent(options_);
  servers_ = servers_of(targets, options_);
  target_ = joined(servers_, [](const Server& server) { return server.target(); });
  peer_ = joined(servers_, [](const Server& server) { return server.peer(); });
}

std::shared_ptr<Server> Connection::server(std::string_view run_key) const {
  const std::lock_guard lock(mutex_);
  if (servers_.empty()) throw closed();
  return server_for(servers_, run_key);
}

void Connection::close() {
  closing_.request_stop();
  const std::lock_guard lock(mutex_);
  servers_.clear();
}

void Connection::require_open(const CallTerms& terms) const {
  if (is_closed()) throw closed();
  if (terms.stop_token.stop_requested())
    throw CancelledError("the call was cancelled before it began");
}

void Connection::pause(Deadline::Clock::duration time, const CallTerms& terms) const {
  std::mutex mutex;
  std::condition_variable woken;
  bool is_over = false;
  const auto wake = [&] {
    const std::lock_guard lock(mutex);
    is_over = true;
    woken.notify_all();
  };
  const std::stop_callback by_caller(terms.stop_token, wake);
  const std::stop_callback by_close(closing(), wake);
  std::unique_lock lock(mutex);
  woken.wait_for(lock, time, [&] { return is_over; });
}

Attempt::Attempt(const Connection& connection, const CallTerms& terms)
    : by_caller_(terms.stop_token, Cancel{&context_}),
      by_close_(connection.closing(), Cancel{&context_}) {
  context_.set_deadline(terms.deadline.on_wall_clock());
  if (!terms.run_key.empty()) context_.AddMetadata(kRunKeyHeader, terms.run_key);
  const std::string& token = connection.options().token;
  if (!token.empty()) context_.AddMetadata("authorization", "Bearer " + token);
}

}  // namespace transparent_llm::internal
