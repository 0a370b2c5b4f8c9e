// What a client keeps of its current run.

#include "kept_values.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <vector>

#include "scripted_server.h"
#include "transparent_llm/client.h"
#include "wire.h"

namespace transparent_llm {
namespace {

using internal::CurrentRun;
using internal::KeptValues;

Tensor of_bytes(std::size_t n) {
  return Tensor(Dtype::kU8, {n}, {"axis"}, std::vector<std::byte>(n));
}

CurrentRun a_run() {
  return {.request = {},
          .key = "k",
          .run_id = "r",
          .model_digest = "d",
          .tokens = of_bytes(1),
          .mask = {},
          .effects = {},
          .sources = {}};
}

TEST(KeptValuesTest, ThoseReadLongestAgoGoFirst) {
  const CurrentRun run = a_run();
  KeptValues kept(4000);
  for (const char* name : {"a", "b", "c", "d"}) {
    kept.keep(run, name, {{"", of_bytes(800)}});
    EXPECT_TRUE(kept.find(run, "a"));  // read again each time
  }
  EXPECT_TRUE(kept.find(run, "d"));
  kept.keep(run, "e", {{"", of_bytes(800)}});
  EXPECT_FALSE(kept.find(run, "b"));
  EXPECT_TRUE(kept.find(run, "a"));
  EXPECT_TRUE(kept.find(run, "e"));
}

TEST(KeptValuesTest, WhatIsLargerThanAQuarterIsNotKept) {
  const CurrentRun run = a_run();
  KeptValues kept(4000);
  kept.keep(run, "large", {{"one", of_bytes(500)}, {"other", of_bytes(501)}});
  EXPECT_FALSE(kept.find(run, "large"));
  KeptValues nothing(0);
  nothing.keep(run, "a", {{"", of_bytes(0)}});
  EXPECT_FALSE(nothing.find(run, "a"));
}

TEST(KeptValuesTest, ValuesOfARunGoWithIt) {
  KeptValues kept(4000);
  const CurrentRun other = a_run();
  std::string asked = "a";
  {
    const CurrentRun run = a_run();
    kept.keep(run, asked, {{"", of_bytes(8)}});
    EXPECT_FALSE(kept.find(other, asked));
    const CurrentRun same = run;  // that of a copy of the client
    EXPECT_TRUE(kept.find(same, asked));
  }
  kept.keep(other, asked, {{"", of_bytes(8)}});
  kept.forget_unowned();
  EXPECT_TRUE(kept.find(other, asked));
}

TEST(KeptValuesTest, AskingTwiceSendsNothingTwice) {
  test::ScriptedServer server;
  std::atomic<int> reads = 0;
  server.on_residual_in = [&](const v1::ResidualInRequest&, test::Writer* writer) {
    ++reads;
    writer->Write(test::residual(8, "abcdefgh"));
    return grpc::Status::OK;
  };
  Client llm = Client::connect(server.address());
  llm.run({"My lord"});
  const Tensor first = llm.residual_in(0);
  const Tensor second = llm.residual_in(0);
  EXPECT_EQ(second.bytes().data(), first.bytes().data());  // they share the elements
  EXPECT_EQ(reads, 1);
  llm.residual_in(1);
  EXPECT_EQ(reads, 2);
  Client twin = llm.copy();
  twin.residual_in(0);
  EXPECT_EQ(reads, 2);
  llm.run({"My lord"});
  llm.residual_in(0);
  EXPECT_EQ(reads, 3);
  twin.residual_in(0);
  EXPECT_EQ(reads, 3);
  Client forgetful = Client::connect(server.address(), {.cache_bytes = 0});
  forgetful.run({"My lord"});
  forgetful.residual_in(0);
  forgetful.residual_in(0);
  EXPECT_EQ(reads, 5);
}

}  // namespace
}  // namespace transparent_llm
