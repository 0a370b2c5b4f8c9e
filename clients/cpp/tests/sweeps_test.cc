// Sweeps: beside edited runs of the real server, and what a server may not answer.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "real_server.h"
#include "scripted_server.h"
#include "transparent_llm/client.h"
#include "wire.h"

namespace transparent_llm {
namespace {

using Shape = std::vector<std::size_t>;
const std::vector<std::vector<Index>> kRows = {{1, 2, 3, 4, 5}, {9, 8, 7}};
const std::vector<std::vector<Index>> kOthers = {{11, 12, 13, 14, 15}, {19, 18, 17}};
const std::vector<Edit> kZero = {Edit::zero(Site::head(0, 0), Selection::all())};
const std::vector<Metric> kLogit = {Metric::logit({5})};

TEST(SweepsTest, ACellIsTheRunWithItsEdit) {
  Client llm = Client::connect(test::real_server()), other = llm.copy();
  llm.run_tokens(kRows);
  other.run_tokens(kOthers);
  const std::vector<Edit> before = {Edit::scale(Site::ffn_out(1), 0.5, Selection::all())};
  const auto patched = [&](Index layer, Index head, Index pos) {
    return Edit::patch(Site::head(layer, head), other, Selection::at({pos}));
  };
  std::vector<SweepCell> cells;
  for (const Index layer : {0, 1})
    for (const Index head : {0, 1, 2, 3})
      cells.push_back({.layer = layer, .head = head, .positions = {2}});
  llm.release();  // both lost: what is swept, and what is patched from
  other.release();
  std::size_t n_came = 0;
  const Swept got = llm.sweep({patched(0, 0, 1)}, cells, {Metric::logit({5}), Metric::loss()},
                              {.before = before, .on_progress = [&](std::size_t came, std::size_t all) {
                                 EXPECT_EQ(all, 8u);
                                 n_came = came;
                               }});
  EXPECT_EQ(n_came, 8u);
  EXPECT_EQ(got.baselines.shape(), (Shape{2, 2}));
  EXPECT_EQ(got.values.shape(), (Shape{8, 2, 2}));
  EXPECT_EQ(got.values.dims(), (std::vector<std::string>{"cell", "metric", "row"}));
  Client edited = llm.copy();
  const auto logit = [&](const std::vector<Edit>& edits, std::size_t row) {
    edited.run_tokens(kRows, {.edits = edits});
    return edited.logits().at({row, edited.last()[row], 5});
  };
  for (const std::size_t row : {0, 1}) {
    EXPECT_NEAR(got.baselines.at({0, row}), logit(before, row), 1e-3);
    EXPECT_NEAR(got.values.at({6, 0, row}), logit({before[0], patched(1, 2, 2)}, row), 1e-3);
  }
  EXPECT_EQ(llm.sweep(kZero, {{}}, kLogit, {.rows = {1}}).values.shape(), (Shape{1, 1, 1}));
}

TEST(SweepsTest, WhatMakesNoSenseIsRefused) {
  Client llm = Client::connect(test::real_server(), {.max_bytes = 1 << 20});
  EXPECT_THROW(llm.sweep(kZero, {{}}, kLogit), NotRunError);
  llm.run_tokens(kRows);
  EXPECT_THROW(llm.sweep({}, {{}}, kLogit), InvalidRequestError);
  EXPECT_THROW(llm.sweep(kZero, {}, kLogit), InvalidRequestError);
  EXPECT_THROW(llm.sweep(kZero, {{}}, {}), InvalidRequestError);
  EXPECT_THROW(llm.sweep(kZero, {{}}, std::vector<Metric>(17, kLogit[0])), TooLargeError);
  EXPECT_THROW(llm.sweep(kZero, {{}}, kLogit, {.before = std::vector<Edit>(512, kZero[0])}),
               TooLargeError);
  EXPECT_THROW(llm.sweep(kZero, {{.head = 99}}, kLogit), IndexOutOfRangeError);
  EXPECT_THROW(llm.sweep(kZero, {{.layer = Index{1} << 40}}, kLogit), IndexOutOfRangeError);
  EXPECT_THROW(llm.sweep(kZero, {{.neurons = {1}}}, kLogit), InvalidRequestError);
  EXPECT_THROW(llm.sweep(kZero, {{}}, kLogit, {.rows = {9}}), IndexOutOfRangeError);
  EXPECT_THROW(llm.sweep(kZero, std::vector<SweepCell>(70'000), kLogit), TooLargeError);
  std::stop_source stop;
  stop.request_stop();
  EXPECT_THROW(llm.sweep(kZero, {{}}, kLogit, {.stop_token = stop.get_token()}), CancelledError);
}

TEST(MetricsTest, WhatMakesNoSenseIsRefusedHere) {
  EXPECT_THROW(Metric::logit({}), InvalidRequestError);
  EXPECT_THROW(Metric::logit({Index{1} << 40}), IndexOutOfRangeError);
  EXPECT_THROW(Metric::prob(std::vector<Index>(4097, 1)), TooLargeError);
  EXPECT_THROW(Metric::loss().at(0), InvalidRequestError);
  EXPECT_THROW(Metric::entropy().minus({5}), InvalidRequestError);
  EXPECT_THROW(Metric::logprob({5}).minus({}), InvalidRequestError);
  EXPECT_THROW(Metric::projection(Site::attn_out(0), Vector::unembedding(5)), InvalidRequestError);
  EXPECT_THROW(Metric::kl(Client::connect("127.0.0.1:1")), NotRunError);
}

/// A server that answers a sweep of two cells of a run of one row with these messages.
class ScriptedSweep {
 public:
  explicit ScriptedSweep(std::vector<v1::SweepResponse> messages, std::uint32_t most_cells = 0) {
    server_.on_server_info = [most_cells](v1::ServerInfoResponse* response) {
      response->add_features("sweep");
      response->mutable_limits()->set_max_sweep_cells(most_cells);
      return grpc::Status::OK;
    };
    server_.on_sweep = [messages = std::move(messages)](const v1::SweepRequest&,
                                                        test::SweepWriter* writer) {
      for (const v1::SweepResponse& message : messages) writer->Write(message);
      return grpc::Status::OK;
    };
  }

  std::vector<double> values() {
    Client llm = Client::connect(server_.address());
    llm.run_tokens({{7, 8}});
    return llm.sweep(kZero, std::vector<SweepCell>(2), kLogit).values.doubles();
  }

 private:
  test::ScriptedServer server_;
};

v1::SweepResponse part(const std::vector<double>& baselines, const std::vector<std::uint32_t>& cells,
                       const std::vector<double>& values) {
  v1::SweepResponse message;
  message.mutable_baselines()->Add(baselines.begin(), baselines.end());
  message.mutable_cells()->Add(cells.begin(), cells.end());
  message.mutable_values()->Add(values.begin(), values.end());
  return message;
}

TEST(SweepsTest, CellsComeInAnyOrderAndInAsManyCallsAsItTakes) {
  EXPECT_EQ(ScriptedSweep({part({1}, {1}, {3}), part({}, {0}, {5})}).values(),
            (std::vector<double>{5, 3}));
  EXPECT_EQ(ScriptedSweep({part({1}, {0}, {7})}, 1).values(), (std::vector<double>{7, 7}));
}

TEST(SweepsTest, AnswersThatAreNotOfTheCellsAreInternalErrors) {
  const v1::SweepResponse first = part({1}, {1}, {3});
  const std::vector<std::vector<v1::SweepResponse>> answers = {
      {},
      {first},
      {part({}, {0, 1}, {3, 4})},
      {part({1, 2}, {0, 1}, {3, 4})},
      {first, part({1}, {0}, {5})},
      {first, first},
      {part({1}, {0, 0}, {3, 4})},
      {part({1}, {2}, {3})},
      {part({1}, {4294967295}, {3})},
      {part({1}, {0, 1}, {3})},
      {first, part({}, {}, {}), part({}, {0}, {5})},
  };
  for (std::size_t i = 0; i < answers.size(); ++i) {
    SCOPED_TRACE(i);
    ScriptedSweep sweep(answers[i]);
    EXPECT_THROW(sweep.values(), InternalError);
  }
}

}  // namespace
}  // namespace transparent_llm
