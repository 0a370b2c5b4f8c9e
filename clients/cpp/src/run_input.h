// What a run is made of: sentences, or token ids. A client keeps it to make a lost run again.

#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "transparent_llm/read.h"
#include "transparent_llm/v1/service.pb.h"

namespace transparent_llm::internal {

/// The message that asks for a run. Throws InvalidRequestError for text that is not UTF-8.
v1::RunRequest sentences_request(const std::string& model,
                                 const std::vector<std::string>& sentences);
/// The same of token ids. Throws as `require_token_ids`.
v1::RunRequest tokens_request(const std::string& model,
                              const std::vector<std::vector<Index>>& token_ids);

/// Throws InvalidRequestError for text that is not UTF-8; `what` it is, in the message.
void require_utf8(const std::string& what, std::string_view text,
                  const std::map<std::string, std::string>& metadata = {});

/// Throws InvalidRequestError (UNKNOWN_TOKEN) for what no vocabulary has, so that it need not
/// travel.
void require_token_ids(std::span<const Index> token_ids);

/// The routing key, by which proxies choose a replica: a hash of model and input, the same in every
/// language. docs/PROTOCOL.md has its definition.
std::string run_key(const v1::RunRequest& request);

}  // namespace transparent_llm::internal
