#include "generations.h"

#include <stdexcept>

namespace driver {
namespace {

using namespace transparent_llm;

/// What does not compile with this client's API is refused as the others refuse it.
Index whole(const std::string& name, const Json& json) {
  if (!json.is_number_integer()) throw InvalidRequestError(name + " is " + json.dump());
  return json.get<Index>();
}

double number(const std::string& name, const Json& json) {
  if (!json.is_number()) throw InvalidRequestError(name + " is " + json.dump());
  return json.get<double>();
}

void set(GenerateOptions& options, const std::string& name, const Json& value) {
  if (name == "max_new_tokens") {
    options.max_new_tokens = whole(name, value);
  } else if (name == "temperature") {
    options.temperature = number(name, value);
  } else if (name == "top_k") {
    options.top_k = whole(name, value);
  } else if (name == "top_p") {
    options.top_p = number(name, value);
  } else if (name == "top_logprobs") {
    options.top_logprobs = whole(name, value);
  } else if (name == "seed") {
    if (!value.is_number_unsigned()) throw InvalidRequestError("seed is " + value.dump());
    options.seed = value.get<std::uint64_t>();
  } else if (name == "stop") {
    for (const Json& one : value.is_string() ? Json::array({value}) : value) {
      if (one.is_string())
        options.stop_strings.push_back(one.get<std::string>());
      else
        options.stop_token_ids.push_back(whole("stop", one));
    }
  } else {
    throw std::invalid_argument("unknown in a generation: " + name);
  }
}

std::vector<GenerationStep> steps_of(Client& llm, const Json& generation,
                                     const GenerateOptions& options) {
  const Json prompts = generation.value("prompts", Json());
  const Json chat = generation.value("messages", Json());
  if (prompts.is_null() == chat.is_null())
    throw InvalidRequestError("generate takes either prompts or messages");
  if (!chat.is_null()) {
    std::vector<ChatMessage> messages;
    for (const Json& one : chat)
      messages.push_back({one.at("role").get<std::string>(), one.at("content").get<std::string>()});
    return llm.generate_chat(messages, options);
  }
  if (!prompts.is_array()) throw InvalidRequestError("prompts is a list, not " + prompts.dump());
  if (!prompts.empty() && prompts[0].is_array())
    return llm.generate_tokens(prompts.get<std::vector<std::vector<Index>>>(), options);
  return llm.generate(prompts.get<std::vector<std::string>>(), options);
}

Json name_of(const std::optional<Finished>& finished) {
  if (!finished) return nullptr;
  return *finished == Finished::kStop ? "stop" : *finished == Finished::kEos ? "eos" : "length";
}

Json to_json(const NextToken& token) {
  return {{"token_id", token.token_id},
          {"text", token.text},
          {"logprob", token.logprob},
          {"finished", name_of(token.finished)},
          {"top_ids", token.top_ids},
          {"top_logprobs", token.top_logprobs}};
}

}  // namespace

Json generated(Client& llm, const Json& generation, GenerateOptions options) {
  for (const auto& [name, value] : generation.items())
    if (name != "prompts" && name != "messages" && !value.is_null()) set(options, name, value);
  Json steps = Json::array();
  for (const GenerationStep& step : steps_of(llm, generation, options)) {
    Json tokens = Json::array();
    for (const auto& token : step) tokens.push_back(token ? to_json(*token) : Json(nullptr));
    steps.push_back(tokens);
  }
  return {{"steps", steps}, {"run_id", llm.run_id()}};
}

}  // namespace driver
