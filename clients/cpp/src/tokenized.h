// Text as tokens, without a run.

#pragma once

#include <optional>
#include <string>

#include "calls.h"
#include "transparent_llm/read.h"
#include "transparent_llm/v1/service.pb.h"

namespace transparent_llm::internal {

/// The tokens of a text, by the model with this digest, or by whichever is served if it is empty.
/// Throws InvalidRequestError for text that is not UTF-8, InternalError for an answer that
/// contradicts itself.
v1::TokenizeResponse tokenized(Connection& connection, const std::string& digest,
                               const std::string& text, std::optional<bool> add_bos,
                               const CallTerms& terms);

/// The only token of a text. Throws InvalidRequestError if there are several.
Index single_token(const std::string& text, const v1::TokenizeResponse& tokens);

}  // namespace transparent_llm::internal
