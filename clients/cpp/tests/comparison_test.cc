// Comparisons of runs: beside logits of the real server, and what a server may not answer.

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <vector>

#include "real_server.h"
#include "scripted_server.h"
#include "transparent_llm/client.h"
#include "wire.h"

namespace transparent_llm {
namespace {

const std::vector<std::vector<Index>> kRows = {{1, 2, 3, 4, 5}, {9, 8, 7}};

/// KL(one || other) of the next token, by hand.
double divergence(const Tensor& one, const Tensor& other, std::size_t row, std::size_t pos) {
  const std::size_t n_tokens = one.shape()[2];
  double one_sum = 0, other_sum = 0;
  for (std::size_t token = 0; token < n_tokens; ++token) {
    one_sum += std::exp(one.at({row, pos, token}));
    other_sum += std::exp(other.at({row, pos, token}));
  }
  double sum = 0;
  for (std::size_t token = 0; token < n_tokens; ++token) {
    const double logprob = one.at({row, pos, token}) - std::log(one_sum);
    sum += std::exp(logprob) * (logprob - other.at({row, pos, token}) + std::log(other_sum));
  }
  return sum;
}

TEST(ComparisonTest, DivergencesAreThoseOfTheLogits) {
  Client llm = Client::connect(test::real_server()), edited = llm.copy();
  llm.run_tokens(kRows);
  edited.run_tokens(kRows, {.edits = {Edit::zero(Site::attn_out(1), Selection::all())}});
  const Tensor one = llm.logits(), other = edited.logits();
  edited.release();  // it is made again
  const std::vector<RowComparison> got = llm.compare(edited, {.from_pos = -2});
  ASSERT_EQ(got.size(), 2u);
  for (const std::size_t row : {0, 1}) {
    const std::size_t last = llm.last()[row];
    ASSERT_EQ(got[row].kl_by_pos.size(), last);
    EXPECT_NEAR(got[row].kl, divergence(one, other, row, last), 1e-5);
    for (std::size_t pos = 1; pos <= last; ++pos)
      EXPECT_NEAR(got[row].kl_by_pos[pos - 1], divergence(one, other, row, pos), 1e-5);
    EXPECT_EQ(llm.tokens_to_strings(std::vector<Index>{got[row].top_token})[0], got[row].top_string);
  }
  EXPECT_TRUE(llm.compare(edited)[0].kl_by_pos.empty());
  EXPECT_EQ(llm.compare(llm)[1].kl, 0);
  EXPECT_THROW(llm.compare(edited, {.from_pos = 3}), IndexOutOfRangeError);
  EXPECT_THROW(llm.compare(edited, {.from_pos = -4}), IndexOutOfRangeError);
  edited.run_tokens({{1, 2, 3}});
  EXPECT_THROW(llm.compare(edited), InvalidRequestError);
  EXPECT_THROW(llm.compare(Client::connect(test::real_server())), NotRunError);
}

using Change = std::function<void(v1::CompareRunsResponse&)>;

TEST(ComparisonTest, AnswersThatAreNotOfTheRowsAreInternalErrors) {
  const auto compared = [](const Change& change) {
    test::ScriptedServer server;
    server.on_server_info = [](v1::ServerInfoResponse* response) {
      response->add_features("compare_positions");
      return grpc::Status::OK;
    };
    server.on_compare = [&](const v1::CompareRunsRequest& request, v1::CompareRunsResponse* response) {
      EXPECT_EQ(request.from_pos(), 0u);
      v1::RowComparison& row = *response->add_rows();
      row.add_kl_by_pos(1);
      row.add_kl_by_pos(2);
      change(*response);
      return grpc::Status::OK;
    };
    Client llm = Client::connect(server.address());
    llm.run_tokens({{7, 8}});
    return llm.compare(llm, {.from_pos = 0});
  };
  EXPECT_EQ(compared([](auto&) {})[0].kl_by_pos, (std::vector<double>{1, 2}));
  const std::vector<Change> lies = {
      [](auto& response) { response.clear_rows(); },
      [](auto& response) { response.add_rows(); },
      [](auto& response) { response.mutable_rows(0)->clear_kl_by_pos(); },
      [](auto& response) { response.mutable_rows(0)->add_kl_by_pos(3); },
      [](auto& response) { response.mutable_rows(0)->set_kl(-1); },
      [](auto& response) { response.mutable_rows(0)->set_kl_by_pos(1, -1); },
      [](auto& response) { response.mutable_rows(0)->set_top_id(-1); },
      [](auto& response) { response.mutable_rows(0)->set_other_top_id(-1); },
  };
  for (const Change& lie : lies) EXPECT_THROW(compared(lie), InternalError);
}

}  // namespace
}  // namespace transparent_llm
