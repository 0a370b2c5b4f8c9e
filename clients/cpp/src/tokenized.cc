#include "tokenized.h"

#include <algorithm>

#include "legible.h"
#include "run_input.h"
#include "transparent_llm/errors.h"

namespace transparent_llm::internal {
namespace {

/// Of the tokens of a text, so many are named in a message.
constexpr int kMostNamed = 10;

}  // namespace

v1::TokenizeResponse tokenized(Connection& connection, const std::string& digest,
                               const std::string& text, std::optional<bool> add_bos,
                               const CallTerms& terms) {
  require_utf8("the text", text);
  v1::TokenizeRequest request;
  request.set_model(connection.options().model);
  request.set_model_digest(digest);
  request.set_text(text);
  if (add_bos) request.set_add_bos(*add_bos);
  auto response = unary(connection, &Stub::Tokenize, request, terms);
  const auto& ids = response.token_ids();
  const bool has_negative = std::any_of(ids.begin(), ids.end(), [](auto id) { return id < 0; });
  if (ids.empty() || ids.size() != response.token_strings_size() || has_negative) {
    throw InternalError("the server sent " + std::to_string(response.token_strings_size()) +
                        " strings for " + std::to_string(ids.size()) +
                        " tokens of a text, or a negative token id");
  }
  return response;
}

Index single_token(const std::string& text, const v1::TokenizeResponse& tokens) {
  if (tokens.token_ids_size() == 1) return tokens.token_ids(0);
  std::string named;
  for (int i = 0; i < std::min(tokens.token_strings_size(), kMostNamed); ++i)
    named += (named.empty() ? "" : ", ") + in_quotes(tokens.token_strings(i));
  const std::string count = std::to_string(tokens.token_ids_size());
  throw InvalidRequestError(in_quotes(text) + " is " + count + " tokens, not one: " + named,
                            {.reason = {}, .metadata = {{"tokens", count}}, .retry_after = {}});
}

}  // namespace transparent_llm::internal
