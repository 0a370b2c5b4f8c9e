// The servers of one client, of the same models, so that any can answer any call. Each run lives on one of them.

#pragma once

#include <grpcpp/channel.h>

#include <atomic>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "failure.h"
#include "route.h"
#include "transparent_llm/options.h"
#include "transparent_llm/v1/service.grpc.pb.h"

namespace transparent_llm::internal {

using Stub = v1::TransparentLlmService::Stub;

/// One address, and the connection to it.
class Server {
 public:
  /// Throws InvalidRequestError for what is no target, or a proxy that cannot be used for it.
  Server(const std::string& target, const Options& options);

  const std::string& target() const { return target_; }
  /// What lies at the other end, for messages.
  std::string peer() const { return route_.peer(target_); }
  grpc::Channel& channel() const { return *channel_; }
  std::shared_ptr<grpc::Channel> shared_channel() const { return channel_; }
  Stub& stub() const { return *stub_; }

  /// Whether a call can be made to it: not, if it was lost and there is no connection to it again.
  bool is_there();
  /// What a failed call means, with what is to be known of the way to the server.
  Failure failed(const grpc::Status& status);

 private:
  std::string target_;
  Route route_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<Stub> stub_;
  /// Whether the last that was heard of it is that it could not be reached.
  std::atomic<bool> is_lost_ = false;
};

using Servers = std::vector<std::shared_ptr<Server>>;

/// Throws as `Server` does, and InvalidRequestError for no target, too many, or one that is named twice.
Servers servers_of(const std::vector<std::string>& targets, const Options& options);

/// The server for a routing key: of those that are there the one whose name and the key have the
/// largest hash (rendezvous hashing), so that a server that comes or goes moves no run but its own.
const std::shared_ptr<Server>& server_for(const Servers& servers, std::string_view key);

/// What is said of each, with commas between them.
std::string joined(const Servers& servers, std::string (*said)(const Server&));

}  // namespace transparent_llm::internal
