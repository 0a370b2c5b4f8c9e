// Generations: what the real server answers, and answers that no server should give.

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "real_server.h"
#include "scripted_server.h"
#include "transparent_llm/client.h"
#include "wire.h"

namespace transparent_llm {
namespace {

const std::vector<std::vector<Index>> kRows = {{1, 2, 3, 4, 5}, {9, 8, 7}};

std::vector<Index> ids_of(const std::vector<GenerationStep>& steps, std::size_t row) {
  std::vector<Index> ids;
  for (const GenerationStep& step : steps)
    if (step.at(row)) ids.push_back(step[row]->token_id);
  return ids;
}

std::vector<Index> tokens_of(const Client& llm) {
  const Tensor tokens = llm.tokens();
  const auto ids = tokens.as<Index>();
  return {ids.begin(), ids.end()};
}

TEST(GenerationTest, StepsComeOneByOneAndTheRunIsThatOfAll) {
  Client llm = Client::connect(test::real_server());
  std::vector<GenerationStep> told;
  const auto steps = llm.generate_tokens(
      {{1, 2, 3}}, {.max_new_tokens = 4,
                    .top_logprobs = 3,
                    .on_step = [&](const GenerationStep& step) { told.push_back(step); }});
  ASSERT_EQ(steps.size(), 4u);
  EXPECT_EQ(told, steps);
  std::vector<Index> all = {1, 2, 3};
  for (const Index id : ids_of(steps, 0)) all.push_back(id);
  all.pop_back();  // the model never read the last one
  EXPECT_EQ(tokens_of(llm), all);
  EXPECT_EQ(steps[3][0]->finished, Finished::kLength);
  EXPECT_EQ(steps[0][0]->finished, std::nullopt);
  ASSERT_EQ(steps[0][0]->top_ids.size(), 3u);
  EXPECT_EQ(steps[0][0]->top_ids[0], steps[0][0]->token_id);  // at temperature 0
  EXPECT_EQ(steps[0][0]->top_logprobs[0], steps[0][0]->logprob);
  Client other = Client::connect(test::real_server());
  other.run_tokens({all});
  const Tensor mine = llm.logits(), theirs = other.logits();
  EXPECT_EQ(mine.floats(), theirs.floats());
}

TEST(GenerationTest, ALostRunIsMadeAgain) {
  Client llm = Client::connect(test::real_server());
  llm.generate({"My lord"}, {.max_new_tokens = 2});
  const std::string id = llm.run_id();
  llm.release();
  EXPECT_NO_THROW(llm.residual_out(0));
  EXPECT_EQ(llm.run_id(), id);
}

TEST(GenerationTest, EqualSeedsDrawTheSame) {
  Client llm = Client::connect(test::real_server());
  const GenerateOptions options{.max_new_tokens = 8, .temperature = 2, .top_k = 50, .seed = 7};
  const auto first = llm.generate_tokens(kRows, options);
  EXPECT_EQ(llm.generate_tokens(kRows, options), first);
  const GenerateOptions other{.max_new_tokens = 8, .temperature = 2, .top_k = 50, .seed = 8};
  EXPECT_NE(llm.generate_tokens(kRows, other), first);
}

TEST(GenerationTest, AStopEndsItsRowOnly) {
  Client llm = Client::connect(test::real_server());
  const auto whole = llm.generate_tokens(kRows, {.max_new_tokens = 5});
  const Index stop = whole[0][0]->token_id;
  const auto steps = llm.generate_tokens(kRows, {.max_new_tokens = 5, .stop_token_ids = {stop}});
  EXPECT_EQ(steps[0][0]->finished, Finished::kStop);
  for (std::size_t step = 1; step < steps.size(); ++step) EXPECT_FALSE(steps[step][0]);
  const auto texts =
      llm.generate_tokens({kRows[0]}, {.max_new_tokens = 5, .stop_strings = {whole[0][0]->text}});
  EXPECT_EQ(texts.size(), 1u);
}

TEST(GenerationTest, EditsAreMadeInEveryStepAndInTheRun) {
  Client llm = Client::connect(test::real_server());
  const auto plain = llm.generate_tokens({kRows[0]}, {.max_new_tokens = 3});
  const auto edited = llm.generate_tokens(
      {kRows[0]},
      {.max_new_tokens = 3, .edits = {Edit::scale(Site::ffn_out(0), -5, Selection::all())}});
  EXPECT_NE(edited[0][0]->logprob, plain[0][0]->logprob);
  ASSERT_EQ(llm.effects().size(), 1u);
  EXPECT_GT(llm.effects()[0].changed, 0u);
}

TEST(GenerationTest, WhatACallbackThrowsComesOutAndTheRunStays) {
  Client llm = Client::connect(test::real_server());
  llm.run_tokens({{1, 2}});
  const std::string before = llm.run_id();
  int steps = 0;
  EXPECT_THROW(llm.generate({"My lord"}, {.on_step =
                                              [&](const GenerationStep&) {
                                                if (++steps == 2) throw std::range_error("enough");
                                              }}),
               std::range_error);
  EXPECT_EQ(steps, 2);
  EXPECT_EQ(llm.run_id(), before);
  std::stop_source stop;
  EXPECT_THROW(
      llm.generate({"My lord"}, {.max_new_tokens = 40,
                                 .on_step = [&](const GenerationStep&) { stop.request_stop(); },
                                 .stop_token = stop.get_token()}),
      CancelledError);
  EXPECT_EQ(llm.run_id(), before);
}

TEST(GenerationTest, WhatMakesNoSenseIsNotSent) {
  Client llm = Client::connect("127.0.0.1:1");
  const auto refuses = [&](const GenerateOptions& options) {
    EXPECT_THROW(llm.generate({"My lord"}, options), InvalidRequestError);
  };
  refuses({.max_new_tokens = 0});
  refuses({.max_new_tokens = Index{1} << 32});
  refuses({.temperature = 0.001});
  refuses({.temperature = std::nan("")});
  refuses({.top_k = 0});
  refuses({.top_p = 0});
  refuses({.top_p = 1.5});
  refuses({.stop_strings = {""}});
  refuses({.stop_strings = {"\xff"}});
  refuses({.stop_strings = {std::string(257, 'x')}});
  refuses({.stop_token_ids = {-1}});
  refuses({.stop_token_ids = std::vector<Index>(17, 1)});
  refuses({.top_logprobs = -1});
  refuses({.edits = {Edit::zero(Site::head(0, 1), Selection::last())}});
  refuses({.edits = {Edit::zero(Site::head(0, 1), Selection::at({0, -1}))}});
  EXPECT_THROW(llm.generate({"My lord"}, {.top_logprobs = 21}), TooLargeError);
  EXPECT_THROW(llm.generate({}), InvalidRequestError);
  EXPECT_THROW(llm.generate_chat({}), InvalidRequestError);
  EXPECT_THROW(llm.generate_chat(std::vector<ChatMessage>(1025)), TooLargeError);
}

/// Answers with messages that a test makes.
class OddGenerationTest : public testing::Test {
 protected:
  using Message = v1::GenerateResponse;

  void SetUp() override {
    server.on_server_info = [this](v1::ServerInfoResponse* response) {
      for (const std::string& feature : features) response->add_features(feature);
      return grpc::Status::OK;
    };
    server.on_generate = [this](const v1::GenerateRequest&, test::GenerationWriter* writer) {
      ++calls;
      for (const Message& message : answered()) writer->Write(message);
      return end;
    };
  }

  static Message token(std::uint32_t row, std::int32_t id,
                       v1::FinishReason finished = v1::FINISH_REASON_UNSPECIFIED) {
    Message message;
    v1::GeneratedToken& made = *message.add_tokens();
    made.set_row(row);
    made.set_token_id(id);
    made.set_text("x");
    made.set_finished(finished);
    return message;
  }
  static Message run(const std::vector<std::int32_t>& row, const std::string& id = "g") {
    Message message;
    message.mutable_run()->set_run_id(id);
    for (const std::int32_t one : row) {
      if (message.run().rows().empty()) message.mutable_run()->add_rows();
      message.mutable_run()->mutable_rows(0)->add_token_ids(one);
    }
    return message;
  }
  /// A copy: the client has left some answers before the server comes to their end.
  std::vector<Message> answered() {
    const std::lock_guard lock(mutex);
    return answer;
  }
  void refused(std::vector<Message> messages) {
    {
      const std::lock_guard lock(mutex);
      answer = std::move(messages);
    }
    Client llm = Client::connect(server.address());
    EXPECT_THROW(llm.generate_tokens({{7}}, {.max_new_tokens = 2}), InternalError);
  }

  std::vector<std::string> features = {"generate"};
  std::mutex mutex;  // of what follows it
  std::vector<Message> answer;
  grpc::Status end = grpc::Status::OK;
  std::atomic<int> calls = 0;
  test::ScriptedServer server;
};

TEST_F(OddGenerationTest, AnswersThatDoNotFitAreInternalErrors) {
  constexpr auto kLast = v1::FINISH_REASON_LENGTH;
  refused({});
  refused({token(0, 1)});
  refused({token(0, 1), token(0, 2, kLast)});                           // without a run
  refused({run({7})});                                                  // before the last token
  refused({token(0, 1), token(0, 2)});                                  // more than were asked for
  refused({token(1, 1)});                                               // of no row
  refused({token(0, -1, kLast), run({7})});                             // no token
  refused({token(0, 1, static_cast<v1::FinishReason>(77)), run({7})});  // for no known reason
  refused({token(0, 1, kLast), token(0, 2, kLast)});                    // after the last
  refused({token(0, 1, kLast), run({8})});                              // another prompt
  refused({token(0, 1), token(0, 2, kLast), run({7})});
  refused({token(0, 1), token(0, 2, kLast), run({7, 3})});
  refused({token(0, 1, kLast), run({})});
  refused({token(0, 1, kLast), run({7}, "")});
  refused({token(0, 1, kLast), run({7}), run({7})});
  Message twice = token(0, 1);
  twice.MergeFrom(token(0, 1));
  refused({twice});
  Message likeliest = token(0, 1, kLast);
  likeliest.mutable_tokens(0)->add_top_ids(3);
  likeliest.mutable_tokens(0)->add_top_logprobs(0);
  refused({likeliest, run({7})});  // none were asked for
}

TEST_F(OddGenerationTest, AServerThatIsLostAfterAStepSaysHowFarItCame) {
  answer = {token(0, 1)};
  end = test::status_of(grpc::StatusCode::UNAVAILABLE, "DRAINING");
  Client llm = Client::connect(server.address());
  try {
    llm.generate_tokens({{7}}, {.max_new_tokens = 5});
    ADD_FAILURE() << "nothing was thrown";
  } catch (const UnavailableError& error) {
    EXPECT_EQ(error.metadata().at("steps"), "1");
  }
  EXPECT_EQ(calls, 1);  // no server can go on behind it
}

TEST_F(OddGenerationTest, AnOldServerIsAskedForNone) {
  features = {};
  Client llm = Client::connect(server.address());
  EXPECT_THROW(llm.generate({"My lord"}), NotSupportedError);
  EXPECT_EQ(calls, 0);
}

}  // namespace
}  // namespace transparent_llm
