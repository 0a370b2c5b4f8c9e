// What reads would bring: as it comes, and plans that no server should give.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "real_server.h"
#include "scripted_server.h"
#include "transparent_llm/client.h"
#include "wire.h"

namespace transparent_llm {
namespace {

TEST(PlanTest, APlanIsWhatComes) {
  Client llm = Client::connect(test::real_server());
  llm.run_tokens({{1, 2, 3, 4, 5}, {9, 8, 7}});
  const std::vector<Read> reads = {Read::residual_out(1), Read::decomposed_attn(0, 1),
                                   Read::layer_lens(0, 2, {.k = 3})};
  const auto plans = llm.plan(reads);
  ASSERT_EQ(plans.size(), 3u);
  const Tensor residual = llm.residual_out(1), product = llm.decomposed_attn(0, 1);
  EXPECT_EQ(plans[0].name, "residual_out");
  EXPECT_EQ(plans[0].shape, residual.shape());
  EXPECT_EQ(plans[0].dims, residual.dims());
  EXPECT_EQ(plans[0].dtype, residual.dtype());
  EXPECT_EQ(plans[0].n_bytes, residual.bytes().size());
  EXPECT_EQ(plans[0].transfer_bytes, residual.bytes().size());
  EXPECT_EQ(plans[1].n_bytes, product.bytes().size());
  EXPECT_LT(plans[1].transfer_bytes, plans[1].n_bytes);  // its factors travel
  const Parts lens = llm.read_parts(reads[2]);
  ASSERT_EQ(plans[2].parts.size(), lens.size());
  std::uint64_t sum = 0;
  for (const auto& [name, tensor] : lens) sum += tensor.bytes().size();
  EXPECT_EQ(plans[2].n_bytes, sum);
  EXPECT_EQ(plans[2].parts[0].name, "layer_lens.top_ids");
  EXPECT_TRUE(llm.plan({}).empty());
}

TEST(PlanTest, PlansThatDoNotFitAreInternalErrors) {
  test::ScriptedServer server;
  std::vector<v1::TensorHeader> answer;
  server.on_plan = [&](const v1::PlanRequest&, v1::PlanResponse* response) {
    for (const v1::TensorHeader& one : answer) *response->add_tensors() = one;
    return grpc::Status::OK;
  };
  Client llm = Client::connect(server.address());
  llm.run({"My lord"});
  const v1::TensorHeader whole = test::residual(8).header();
  const auto refused = [&](std::vector<v1::TensorHeader> headers) {
    answer = std::move(headers);
    EXPECT_THROW(llm.plan({Read::residual_in(0)}), InternalError);
  };
  refused({});
  refused({whole});
  refused({whole, whole, whole});
  v1::TensorHeader other = whole;
  other.set_name("logits");
  refused({whole, other});
  other = whole;
  other.set_total_bytes(7);
  refused({whole, other});
  other = whole;
  other.set_dims(1, "key_pos");
  refused({other, other});
  answer = {whole, whole};
  EXPECT_EQ(llm.plan({Read::residual_in(0)})[0].n_bytes, 8u);
}

}  // namespace
}  // namespace transparent_llm
