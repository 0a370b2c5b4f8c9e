// Text that a model goes on with, token by token.
//
//   llm.generate({"My lord"}, {.max_new_tokens = 8, .on_step = [](const GenerationStep& step) {
//     std::cout << step[0]->text << std::flush;
//   }});
//   llm.residual_out(2);  // of the prompt and what was generated

#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "transparent_llm/edits.h"
#include "transparent_llm/index.h"

namespace transparent_llm {

/// Why a row has no more tokens.
enum class Finished {
  /// A text or a token of `GenerateOptions` ended it.
  kStop,
  /// There are `GenerateOptions::max_new_tokens`.
  kLength,
  /// A token that ends texts of this model.
  kEos,
};

/// The token of a row in one step.
struct NextToken {
  Index token_id = 0;
  /// Of it by itself.
  std::string text;
  /// Natural, as the model has it: before temperature, `top_k` and `top_p`.
  float logprob = 0;
  /// Why it is the last of its row; absent if it is not.
  std::optional<Finished> finished;
  /// The likeliest tokens.
  std::vector<Index> top_ids;
  /// Their log-probabilities.
  std::vector<float> top_logprobs;

  bool operator==(const NextToken&) const = default;
};

/// What came next: of each row a token; none where it is finished.
using GenerationStep = std::vector<std::optional<NextToken>>;

/// One message of a conversation.
struct ChatMessage {
  /// What the template of the model knows, such as "system", "user" or "assistant".
  std::string role;
  std::string content;
};

/// How many tokens, how each is chosen, and what ends a row.
struct GenerateOptions {
  /// Of each row, at least 1. With the prompt they have to be within the model's context.
  Index max_new_tokens = 20;
  /// 0: the likeliest token each time. Else what logits are divided by before one is drawn, 0.01 to
  /// 100.
  double temperature = 0;
  /// Draw from so many of the likeliest tokens. Absent: from all.
  std::optional<Index> top_k = std::nullopt;
  /// Draw from the likeliest tokens that have this probability together, over 0 and at most 1.
  /// Absent: from all.
  std::optional<double> top_p = std::nullopt;
  /// Of what is drawn: equal seeds draw the same for the same number of row.
  std::uint64_t seed = 0;
  /// Texts that end a row, at most 16 of at most 256 bytes. They are looked for in what was
  /// generated.
  std::vector<std::string> stop_strings = {};
  /// Tokens that end a row, at most 16, besides those of the model.
  std::vector<Index> stop_token_ids = {};
  /// How many of the likeliest tokens are told beside each one, at most 20.
  Index top_logprobs = 0;
  /// Made in every step, and in the run. Positions are all, or some of the prompt from 0.
  std::vector<Edit> edits = {};
  /// Called on the calling thread with each step as it comes. What it throws ends the generation and
  /// comes out of the call.
  std::function<void(const GenerationStep& step)> on_step = {};
  /// In place of `Options::timeout`: for all steps together.
  std::optional<std::chrono::milliseconds> timeout = std::nullopt;
  /// Cancels the call: it then throws CancelledError at once, and the server is told.
  std::stop_token stop_token = {};
};

}  // namespace transparent_llm
