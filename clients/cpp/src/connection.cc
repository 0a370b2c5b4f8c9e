#include "connection.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <sstream>
#include <utility>

#include "transparent_llm/errors.h"

namespace transparent_llm::internal {
namespace {

constexpr const char* kRunKeyHeader = "x-transparent-llm-run-key";
constexpr int kKeepaliveMs =
    20'000;  // a call that brings nothing for so long asks for a sign of life
constexpr int kLongestConnectMs =
    5'000;  // a server that needs longer for the handshake is not there
constexpr int kLongestBackoffMs = 1'000;           // as a lost server is waited for 30 s only
constexpr int kLargestFrameBytes = (1 << 24) - 1;  // of HTTP/2: a message in one frame, not in 64

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

/// The text of a PEM file; gRPC would say of a wrong one only that there is no connection.
std::string pem(const std::filesystem::path& path, const std::string& what) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream read;
  read << file.rdbuf();  // which does not throw, as reading a folder by hand would
  std::string text = std::move(read).str();
  if (!file || text.find("-----BEGIN ") == std::string::npos) {
    throw InvalidRequestError("cannot read " + what + " from " + path.string() +
                              ": not a readable file, or not PEM");
  }
  return text;
}

std::shared_ptr<grpc::ChannelCredentials> credentials(const Options& options) {
  if (options.tls_ca.empty()) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions tls;
  tls.pem_root_certs = pem(options.tls_ca, "the CA certificates");
  if (!options.tls_cert.empty()) {
    tls.pem_cert_chain = pem(options.tls_cert, "the client certificate");
    tls.pem_private_key = pem(options.tls_key, "the client's key");
  }
  return grpc::SslCredentials(tls);
}

/// A target with the usual port, where it is a host without one: gRPC's own default is 443.
std::string completed(const std::string& target) {
  if (target.starts_with("http://") || target.starts_with("https://")) {
    throw InvalidRequestError(target +
                              " is a URL, not a target: write HOST:PORT, and set tls_ca for TLS");
  }
  const bool is_bracketed = target.starts_with('[') && target.find(']') == target.size() - 1;
  const bool is_name = !target.empty() && target.find_first_of(":/[]%,") == std::string::npos;
  return is_bracketed || is_name ? target + ":50051" : target;
}

InvalidRequestError closed() {
  return InvalidRequestError("this client is closed; make a new one with Client::connect");
}

grpc::ChannelArguments arguments(const Route& route) {
  grpc::ChannelArguments arguments;
  // The client decides, not gRPC by the environment. The second counts without the first too.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, route.proxy.empty() ? 0 : 1);
  arguments.SetString("grpc.address_http_proxy_enabled_addresses", "");
  if (!route.proxy.empty()) arguments.SetString(GRPC_ARG_HTTP_PROXY, route.proxy);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);  // calls.cc makes them, within the call's time
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of this client's own
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kLargestFrameBytes);
  // Nothing is unpacked: half a megabyte may become 512, before gRPC looks at its size.
  arguments.SetInt(GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1 << GRPC_COMPRESS_NONE);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveMs);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // as often as that during one call
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kLongestConnectMs);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kLongestBackoffMs);
  return arguments;
}

}  // namespace

Connection::Connection(const std::string& target, Options options)
    : target_(completed(target)), options_(std::move(options)) {
  require_consistent(options_);
  route_ = route_to(target_, options_, [](const char* name) { return std::getenv(name); });
  channel_ = grpc::CreateCustomChannel(target_, credentials(options_), arguments(route_));
  stub_ = v1::TransparentLlmService::NewStub(channel_);
}

std::shared_ptr<grpc::Channel> Connection::channel() const {
  const std::lock_guard lock(mutex_);
  if (!channel_) throw closed();
  return channel_;
}

std::shared_ptr<Stub> Connection::stub() const {
  const std::lock_guard lock(mutex_);
  if (!stub_) throw closed();
  return stub_;
}

void Connection::close() {
  closing_.request_stop();
  const std::lock_guard lock(mutex_);
  stub_.reset();
  channel_.reset();
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
