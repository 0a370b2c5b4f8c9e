#include "generating.h"

#include <grpcpp/impl/codegen/proto_utils.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "assembler.h"
#include "edit_parts.h"
#include "legible.h"
#include "run_input.h"
#include "transparent_llm/errors.h"

namespace transparent_llm::internal {
namespace {

constexpr std::size_t kMostStops = 16, kLongestStop = 256, kMostTopLogprobs = 20, kMostMessages = 1024;
constexpr double kColdest = 0.01, kHottest = 100;
/// Characters that are kept of a token; of what names a run, the most there can be.
constexpr std::size_t kLongestToken = 1000, kLongestRunId = 256;

/// A count as it travels.
std::uint32_t counted(const std::string& name, Index count, Index least) {
  if (count >= least && count <= std::numeric_limits<std::uint32_t>::max())
    return static_cast<std::uint32_t>(count);
  throw InvalidRequestError(name + " is " + std::to_string(count) + ": it must be " +
                            std::to_string(least) + " or more, and below 2**32");
}

void require_choice(const GenerateOptions& options) {
  const double temperature = options.temperature;
  if (temperature != 0 && !(temperature >= kColdest && temperature <= kHottest)) {  // of NaN too
    throw InvalidRequestError("temperature is " + std::to_string(temperature) +
                              ": it must be 0, for the likeliest token each time, or from 0.01 to "
                              "100");
  }
  if (options.top_p && !(*options.top_p > 0 && *options.top_p <= 1)) {
    throw InvalidRequestError("top_p is " + std::to_string(*options.top_p) +
                              ": it must be over 0 and at most 1, or absent for all tokens");
  }
}

void add_stops(v1::GenerateRequest& request, const GenerateOptions& options) {
  require_few("stop strings", options.stop_strings.size(), kMostStops);
  require_few("stop tokens", options.stop_token_ids.size(), kMostStops);
  require_token_ids(options.stop_token_ids);
  for (const std::string& text : options.stop_strings) {
    if (text.empty()) throw InvalidRequestError("a stop string is empty: every text has it");
    require_few("bytes of a stop string", text.size(), kLongestStop);
    require_utf8("a stop string", text);
    request.add_stop_strings(text);
  }
  for (const Index id : options.stop_token_ids)
    request.add_stop_token_ids(static_cast<std::int32_t>(id));
}

/// Throws InvalidRequestError for an edit whose places would be others in each step.
void require_movable(const v1::Intervention& edit) {
  const auto& positions = edit.chosen_positions().indices();
  const bool from_the_end = std::any_of(positions.begin(), positions.end(),
                                        [](std::int32_t position) { return position < 0; });
  if (!edit.last_position() && !from_the_end) return;
  throw InvalidRequestError(
      "an edit of the last token, which is another one in every step of a generation; name "
      "positions of the prompt from 0, or all");
}

void add_prompts(v1::GenerateRequest& request, const v1::RunRequest& input,
                 const std::vector<ChatMessage>& messages) {
  if (messages.empty() && input.sentences().sentences().empty() &&
      input.tokens().sequences().empty()) {
    throw InvalidRequestError("a generation has no prompts: give at least one",
                              {.reason = "EMPTY_INPUT", .metadata = {}, .retry_after = {}});
  }
  if (!messages.empty()) {
    require_few("messages of a chat", messages.size(), kMostMessages);
    for (const auto& [role, content] : messages) {
      require_utf8("the role of a message", role);
      v1::ChatMessage& sent = *request.add_messages();
      sent.set_role(role);
      sent.set_content(content);
    }
    return;
  }
  for (const std::string& sentence : input.sentences().sentences())
    request.add_prompts()->set_text(sentence);
  for (const v1::TokenSequence& row : input.tokens().sequences())
    *request.add_prompts()->mutable_tokens()->mutable_token_ids() = row.token_ids();
}

std::optional<Finished> finished_of(const v1::GeneratedToken& token) {
  switch (token.finished()) {
    case v1::FINISH_REASON_STOP:
      return Finished::kStop;
    case v1::FINISH_REASON_LENGTH:
      return Finished::kLength;
    case v1::FINISH_REASON_EOS:
      return Finished::kEos;
    default:
      return std::nullopt;
  }
}

}  // namespace

Generation::Generation(const v1::RunRequest& input, const std::vector<ChatMessage>& messages,
                       const GenerateOptions& options)
    : on_step_(options.on_step) {
  v1::GenerateRequest& request = *request_;
  request.set_model(input.model());
  request.set_max_new_tokens(counted("max_new_tokens", options.max_new_tokens, 1));
  request.set_top_logprobs(counted("top_logprobs", options.top_logprobs, 0));
  require_few("top_logprobs", request.top_logprobs(), kMostTopLogprobs);
  require_choice(options);
  request.set_temperature(options.temperature);
  if (options.top_k) request.set_top_k(counted("top_k", *options.top_k, 1));
  if (options.top_p) request.set_top_p(*options.top_p);
  request.set_seed(options.seed);
  add_stops(request, options);
  add_edits(*request.mutable_edits(), options.edits);
  for (const v1::Intervention& edit : request.edits()) require_movable(edit);
  add_prompts(request, input, messages);
  tokens_.resize(messages.empty() ? static_cast<std::size_t>(request.prompts_size()) : 1);
  for (std::uint32_t row = 0; row < tokens_.size(); ++row) going_on_.insert(row);
}

std::shared_ptr<const v1::GenerateRequest> Generation::request() const {
  if (steps_.empty()) return request_;
  const std::string count = std::to_string(steps_.size());
  throw UnavailableError("the server was lost after " + count + " of at most " +
                             std::to_string(request_->max_new_tokens()) +
                             " steps of a generation; generate again, or go on with "
                             "generate_tokens from what has come",
                         {.reason = {}, .metadata = {{"steps", count}}, .retry_after = {}});
}

void Generation::take(grpc::ByteBuffer& buffer) {
  v1::GenerateResponse message;
  if (!grpc::SerializationTraits<v1::GenerateResponse>::Deserialize(&buffer, &message).ok())
    throw StreamError("a message that is not a GenerateResponse");
  if (rows_ || message.has_run() != going_on_.empty())
    throw StreamError("a run before the last token, or a token after it");
  if (message.has_run()) return take_run(message.run());
  std::set<std::uint32_t> rows;
  for (const v1::GeneratedToken& token : message.tokens()) rows.insert(token.row());
  if (rows != going_on_ || static_cast<std::size_t>(message.tokens_size()) != rows.size())
    throw StreamError("a step that has not one token of each row that is not finished");
  GenerationStep step(tokens_.size());
  for (const v1::GeneratedToken& token : message.tokens()) step[token.row()] = next(token);
  steps_.push_back(std::move(step));
  if (on_step_) on_step_(steps_.back());
}

NextToken Generation::next(const v1::GeneratedToken& token) {
  const auto n_top = static_cast<std::size_t>(token.top_ids_size());
  const bool are_pairs = token.top_ids_size() == token.top_logprobs_size();
  if (token.token_id() < 0 || n_top > request_->top_logprobs() || !are_pairs) {
    throw StreamError("token " + std::to_string(token.token_id()) + " with " +
                      std::to_string(n_top) + " likeliest ones");
  }
  std::vector<std::int32_t>& of_row = tokens_[token.row()];
  of_row.push_back(token.token_id());
  const auto finished = finished_of(token);
  if (finished) {
    going_on_.erase(token.row());
  } else if (token.finished() != v1::FINISH_REASON_UNSPECIFIED ||
             of_row.size() >= request_->max_new_tokens()) {
    throw StreamError(std::to_string(of_row.size()) + " tokens of a row, and it is not finished");
  }
  return {.token_id = token.token_id(),
          .text = legible(token.text(), kLongestToken),
          .logprob = token.logprob(),
          .finished = finished,
          .top_ids = {token.top_ids().begin(), token.top_ids().end()},
          .top_logprobs = {token.top_logprobs().begin(), token.top_logprobs().end()}};
}

void Generation::take_run(const v1::GeneratedRun& run) {
  if (static_cast<std::size_t>(run.rows_size()) != tokens_.size() || run.run_id().empty() ||
      run.run_id().size() > kLongestRunId) {
    throw StreamError("a run of " + std::to_string(run.rows_size()) + " rows for " +
                      std::to_string(tokens_.size()) + " that were sent");
  }
  v1::TokenBatch rows;
  for (const v1::TokenRow& row : run.rows()) {
    const auto number = static_cast<std::size_t>(rows.sequences_size());
    if (!goes_on_from(row, number)) {
      throw StreamError("row " + std::to_string(number) +
                        " of the run is not the prompt and what was generated");
    }
    *rows.add_sequences()->mutable_token_ids() = row.token_ids();
  }
  rows_ = std::move(rows);
}

bool Generation::goes_on_from(const v1::TokenRow& row, std::size_t number) const {
  const auto& ids = row.token_ids();
  const auto& added = tokens_[number];  // the last of which was never read
  const std::size_t n_added = added.size() - 1;
  if (static_cast<std::size_t>(ids.size()) <= n_added) return false;
  const auto begin_of_added = ids.end() - static_cast<std::ptrdiff_t>(n_added);
  const bool are_ids = std::all_of(ids.begin(), ids.end(), [](auto id) { return id >= 0; });
  if (!are_ids || !std::equal(begin_of_added, ids.end(), added.begin())) return false;
  if (request_->prompts_size() == 0) return true;
  const v1::Prompt& prompt = request_->prompts(static_cast<int>(number));
  if (!prompt.has_tokens()) return true;
  const auto& sent = prompt.tokens().token_ids();
  return std::equal(ids.begin(), begin_of_added, sent.begin(), sent.end());
}

void Generation::require_run() const {
  if (!rows_) throw StreamError("a generation that ended before its run had come");
}

}  // namespace transparent_llm::internal
