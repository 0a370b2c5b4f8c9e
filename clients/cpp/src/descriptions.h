// What servers say of themselves, from their messages, and kept where it is needed again.

#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "calls.h"
#include "expected.h"
#include "transparent_llm/description.h"
#include "transparent_llm/v1/service.pb.h"

namespace transparent_llm::internal {

ModelInfo model_info_of(const v1::ModelInfo& wire);
ServerInfo server_info_of(const v1::ServerInfoResponse& wire);

/// Models by digest, each asked for once. Shared by a client and its copies; safe for many threads.
class Descriptions {
 public:
  /// The model with this digest, if the server gives the output vectors of its neurons; none if it
  /// is not served any more.
  std::optional<ModelDescription> with_neuron_outputs(Connection& connection,
                                                      const std::string& digest,
                                                      const CallTerms& terms);
  /// The model of this digest or, if that is empty, of this name; the only one that is served, if
  /// both are. None if there is none, or it is not loaded. The server is asked.
  static std::optional<ModelDescription> served(Connection& connection, const std::string& name,
                                                const std::string& digest, const CallTerms& terms);
  /// Whether the server has this feature; it is asked if that was not done yet.
  bool offers(Connection& connection, const std::string& feature, const CallTerms& terms);
  /// What the server allows; asked as by `offers`.
  Limits limits(Connection& connection, const CallTerms& terms);
  /// Adds the lengths of axes that are known already; no call is made.
  void add_known(Lengths& lengths, const std::string& digest);

 private:
  ServerInfo said(Connection& connection, const CallTerms& terms);

  std::mutex mutex_;
  std::map<std::string, std::optional<ModelDescription>> known_;
  /// Features and limits of the server.
  std::optional<ServerInfo> said_;
};

}  // namespace transparent_llm::internal
