#include "servers.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>
#include <utility>

#include "connection.h"
#include "transparent_llm/errors.h"

namespace transparent_llm::internal {
namespace {

constexpr std::size_t kMostServers = 1024;
constexpr int kKeepaliveMs =
    20'000;  // a call that brings nothing for so long asks for a sign of life
constexpr int kLongestConnectMs =
    5'000;  // a server that needs longer for the handshake is not there
constexpr int kLongestBackoffMs = 1'000;           // as a lost server is waited for 30 s only
constexpr int kLargestFrameBytes = (1 << 24) - 1;  // of HTTP/2: a message in one frame, not in 64

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

/// FNV-1a, mixed as it hardly brings its last bytes into the upper bits. The same in every process.
std::uint64_t score_of(std::string_view key, std::string_view target) {
  std::uint64_t hash = 0xcbf29ce484222325;
  const auto add = [&hash](unsigned char byte) { hash = (hash ^ byte) * 0x100000001b3; };
  for (const char sign : target) add(static_cast<unsigned char>(sign));
  add(0);
  for (const char sign : key) add(static_cast<unsigned char>(sign));
  for (const int shift : {33, 29, 32}) hash = (hash ^ (hash >> shift)) * 0xff51afd7ed558ccd;
  return hash;
}

}  // namespace

Server::Server(const std::string& target, const Options& options) : target_(completed(target)) {
  route_ = route_to(target_, options, [](const char* name) { return std::getenv(name); });
  channel_ = grpc::CreateCustomChannel(target_, credentials(options), arguments(route_));
  stub_ = v1::TransparentLlmService::NewStub(channel_);
}

bool Server::is_there() {
  if (!is_lost_) return true;
  const grpc_connectivity_state state = channel_->GetState(false);
  if (state != GRPC_CHANNEL_READY && state != GRPC_CHANNEL_IDLE) return false;
  is_lost_ = false;
  return true;
}

Failure Server::failed(const grpc::Status& status) {
  Failure failure = route_.told(failure_of(status, peer()), target_);
  if (failure.details.reason == "UNAVAILABLE") is_lost_ = true;
  return failure;
}

Servers servers_of(const std::vector<std::string>& targets, const Options& options) {
  if (targets.empty() || targets.size() > kMostServers) {
    throw InvalidRequestError("a client has 1 to " + std::to_string(kMostServers) +
                              " targets, got " + std::to_string(targets.size()));
  }
  Servers servers;
  std::set<std::string> names;
  for (const std::string& target : targets) {
    servers.push_back(std::make_shared<Server>(target, options));
    if (!names.insert(servers.back()->target()).second)
      throw InvalidRequestError(servers.back()->target() + " is among the targets twice");
  }
  return servers;
}

const std::shared_ptr<Server>& server_for(const Servers& servers, std::string_view key) {
  using Rank = std::pair<bool, std::uint64_t>;
  const auto rank = [&](Server& server) {
    return Rank(server.is_there(), score_of(key, server.target()));
  };
  const std::shared_ptr<Server>* best = &servers.front();
  Rank most = rank(*servers.front());
  for (const std::shared_ptr<Server>& server : servers) {
    const Rank found = rank(*server);
    if (found > most) {
      most = found;
      best = &server;
    }
  }
  return *best;
}

std::string joined(const Servers& servers, std::string (*said)(const Server&)) {
  std::string all;
  for (const std::shared_ptr<Server>& server : servers) {
    if (!all.empty()) all += ", ";
    all += said(*server);
  }
  return all;
}

}  // namespace transparent_llm::internal
