// Connections that break, before the server of the demo model.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <thread>

#include "interrupting_proxy.h"
#include "real_server.h"
#include "scripted_server.h"
#include "transparent_llm/client.h"
#include "wire.h"

namespace transparent_llm {
namespace {

using namespace std::chrono_literals;
using test::InterruptingProxy;
using test::ScriptedServer;
using test::Writer;

std::string raw(const Tensor& tensor) {
  return {reinterpret_cast<const char*>(tensor.bytes().data()), tensor.bytes().size()};
}

const std::vector<std::string> kLong = {
    "To be or not to be, that is the question, whether it is nobler in the mind to suffer the "
    "slings and arrows",
    "My lord, I have remembrances of yours that I have longed long to redeliver, I pray you now "
    "receive them"};

TEST(InterruptionsTest, AnInterruptedValueGoesOnWhereItBroke) {
  Client direct = Client::connect(test::real_server());
  direct.run(kLong);
  const std::string expected = raw(direct.logits());
  ASSERT_GT(expected.size(), 150'000u);
  InterruptingProxy proxy(test::real_server(), {70'000, 1'000, 60'000});
  Client llm = Client::connect(proxy.address());
  llm.run(kLong);
  std::vector<std::uint64_t> reports;
  const Tensor logits = llm.logits(
      {.on_progress = [&](std::uint64_t received, std::uint64_t) { reports.push_back(received); }});
  EXPECT_EQ(raw(logits), expected);
  EXPECT_EQ(proxy.interruptions(), 3u);
  EXPECT_TRUE(std::is_sorted(reports.begin(), reports.end()));  // nothing began again
  EXPECT_EQ(reports.back(), expected.size());
}

TEST(InterruptionsTest, AnInterruptedFetchGoesOnWhereItBroke) {
  Client direct = Client::connect(test::real_server());
  direct.run(kLong);
  InterruptingProxy proxy(test::real_server(), {40'000, 40'000, 40'000});
  Client llm = Client::connect(proxy.address());
  llm.run(kLong);
  const std::vector<Tensor> fetched =
      llm.fetch({Read::residual_in(0), Read::residual_in(1), Read::logits()});
  EXPECT_GT(proxy.interruptions(), 0u);
  EXPECT_EQ(raw(fetched[0]), raw(direct.residual_in(0)));
  EXPECT_EQ(raw(fetched[1]), raw(direct.residual_in(1)));
  EXPECT_EQ(raw(fetched[2]), raw(direct.logits()));
}

TEST(InterruptionsTest, ChunksGoOnWithoutAGap) {
  Client direct = Client::connect(test::real_server());
  direct.run(kLong);
  InterruptingProxy proxy(test::real_server(), {70'000, 60'000});
  Client llm = Client::connect(proxy.address());
  llm.run(kLong);
  std::string joined;
  llm.read_chunks(Read::logits(),
                  [&](const TensorHeader&, std::uint64_t offset, std::span<const std::byte> bytes) {
                    ASSERT_EQ(offset, joined.size());
                    joined.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
                  });
  EXPECT_EQ(joined, raw(direct.logits()));
  EXPECT_EQ(proxy.interruptions(), 2u);
}

TEST(InterruptionsTest, ARunOverALostConnectionIsAskedForAgain) {
  InterruptingProxy proxy(test::real_server(), {1'000});
  Client llm = Client::connect(proxy.address());
  for (int runs = 0; proxy.interruptions() == 0 && runs < 100; ++runs) llm.run({"My lord"});
  EXPECT_EQ(proxy.interruptions(), 1u);
  llm.run({"My lord"});
  EXPECT_EQ(llm.batch_size(), 1u);
}

TEST(InterruptionsTest, AClosedClientLetsItsConnectionGo) {
  InterruptingProxy proxy(test::real_server(), {});
  Client llm = Client::connect(proxy.address());
  llm.run({"My lord"});
  llm.close();
  proxy.wait_for_end();
  EXPECT_THROW(llm.is_serving(), InvalidRequestError);
}

TEST(InterruptionsTest, NewBitsBeginAnew) {
  ScriptedServer server;
  std::vector<std::pair<std::uint64_t, std::string>> asked;
  server.on_residual_in = [&](const v1::ResidualInRequest& request, Writer* writer) {
    asked.emplace_back(request.options().resume_offset(), request.options().etag());
    if (asked.size() == 1) {
      writer->Write(test::residual(4, "ab", "old"));
      return grpc::Status(grpc::UNAVAILABLE, "lost");
    }
    writer->Write(test::residual(4, "wxyz", "new"));
    return grpc::Status::OK;
  };
  Client llm = Client::connect(server.address());
  llm.run({"My lord"});
  std::vector<std::uint64_t> offsets;
  std::string last;
  llm.read_chunks(Read::residual_in(0),
                  [&](const TensorHeader&, std::uint64_t offset, std::span<const std::byte> bytes) {
                    offsets.push_back(offset);
                    last.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
                  });
  EXPECT_EQ(last, "wxyz");
  EXPECT_EQ(offsets, (std::vector<std::uint64_t>{0, 0}));
  EXPECT_EQ(asked[1], (std::pair<std::uint64_t, std::string>{2, "old"}));
}

TEST(InterruptionsTest, AStreamInCrumbsIsNotAskedForWithoutAPause) {
  ScriptedServer server;
  std::atomic<int> calls = 0;
  server.on_residual_in = [&](const v1::ResidualInRequest& request, Writer* writer) {
    ++calls;
    v1::TensorChunk crumb = test::residual(1 << 20, "x");
    crumb.set_offset(request.options().resume_offset());
    writer->Write(crumb);
    return grpc::Status(grpc::UNAVAILABLE, "gone");
  };
  Client llm = Client::connect(server.address());
  llm.run({"My lord"});
  EXPECT_THROW(llm.residual_in(0, {.timeout = 1s}), DeadlineError);
  EXPECT_LE(calls, 25);
}

TEST(InterruptionsTest, AServerThatDrainsIsWaitedForIfItHadAnswered) {
  ScriptedServer server;
  int calls = 0;
  server.on_residual_in = [&](const v1::ResidualInRequest&, Writer* writer) {
    if (++calls == 1) return test::status_of(grpc::UNAVAILABLE, "DRAINING");
    if (calls == 2) return grpc::Status(grpc::CANCELLED, "ended before it began");
    if (calls == 3) return grpc::Status(grpc::INTERNAL, "Received RST_STREAM with error code 2");
    writer->Write(test::residual(4, "abcd"));
    return grpc::Status::OK;
  };
  Client llm = Client::connect(server.address());
  llm.run({"My lord"});
  EXPECT_EQ(raw(llm.residual_in(0)), "abcd");
  EXPECT_EQ(calls, 4);
}

TEST(InterruptionsTest, AServerIsNotWaitedForWhereNobodyWantsTo) {
  ScriptedServer server;
  int calls = 0;
  server.on_residual_in = [&](const v1::ResidualInRequest&, Writer*) {
    ++calls;
    return test::status_of(grpc::UNAVAILABLE, "DRAINING");
  };
  Client llm = Client::connect(server.address(), {.reconnect = 0ms});
  llm.run({"My lord"});
  EXPECT_THROW(llm.residual_in(0), UnavailableError);
  EXPECT_EQ(calls, 1);
}

TEST(InterruptionsTest, AServerThatHasSentAValueHasAnswered) {
  ScriptedServer server;
  int calls = 0;
  server.on_neuron_output = [&](const v1::NeuronOutputRequest&, Writer* writer) {
    if (++calls > 1 && calls < 8) return grpc::Status(grpc::UNAVAILABLE, "gone");
    writer->Write(test::floats("neuron_output", {1}, {1}));
    return grpc::Status::OK;
  };
  Client llm = Client::connect(server.address());
  EXPECT_EQ(llm.neuron_output(0, 0).floats()[0], 1);
  EXPECT_EQ(llm.neuron_output(0, 0).floats()[0], 1);
  EXPECT_EQ(calls, 8);
}

TEST(InterruptionsTest, ABusyServerIsAskedAgainWhenItSaysWithinTheCallsTime) {
  ScriptedServer server;
  int calls = 0;
  server.on_residual_in = [&](const v1::ResidualInRequest&, Writer*) {
    ++calls;
    return test::status_of(grpc::RESOURCE_EXHAUSTED, "BUSY", {}, calls < 3 ? 20 : 900'000);
  };
  Client llm = Client::connect(server.address());
  llm.run({"My lord"});
  try {
    llm.residual_in(0);
    FAIL();
  } catch (const BusyError& error) {
    EXPECT_EQ(error.retry_after(), Seconds(900));
  }
  EXPECT_EQ(calls, 3);
}

TEST(InterruptionsTest, AServerThatNeverAnsweredIsTriedFiveTimes) {
  ScriptedServer server;
  int calls = 0;
  server.on_run = [&](const v1::RunRequest&, v1::RunResponse*) {
    ++calls;
    return grpc::Status(grpc::UNAVAILABLE, "not yet");
  };
  Client llm = Client::connect(server.address());
  EXPECT_THROW(llm.run({"My lord"}), UnavailableError);
  EXPECT_EQ(calls, 5);
}

TEST(InterruptionsTest, AClientThatIsClosedWhileItWaitsCancelsTheCall) {
  std::atomic<int> calls = 0;
  ScriptedServer server;  // which may still count when the client has left
  server.on_residual_in = [&](const v1::ResidualInRequest&, Writer*) {
    ++calls;
    calls.notify_all();
    return grpc::Status(grpc::UNAVAILABLE, "gone");
  };
  Client llm = Client::connect(server.address());
  llm.run({"My lord"});
  Client twin = llm.copy();
  std::jthread closer([&] {
    for (int seen = 0; seen < 5; seen = calls) calls.wait(seen);  // from then on it mostly waits
    twin.close();
  });
  EXPECT_THROW(llm.residual_in(0), CancelledError);
}

TEST(InterruptionsTest, AServerThatStaysAwayMissesTheDeadline) {
  ScriptedServer server;
  server.on_residual_in = [&](const v1::ResidualInRequest& request, Writer* writer) {
    if (request.options().resume_offset() == 0) writer->Write(test::residual(4, "ab"));
    return grpc::Status(grpc::UNAVAILABLE, "gone");
  };
  Client llm = Client::connect(server.address());
  llm.run({"My lord"});
  std::map<std::string, std::string> told;
  for (std::chrono::milliseconds timeout = 1s; told["received"] != "2" && timeout < 60s;
       timeout *= 2) {
    try {  // with more time, if it was over before the first bytes came
      llm.residual_in(0, {.timeout = timeout});
      FAIL();
    } catch (const DeadlineError& error) {
      told = error.metadata();
    }
  }
  EXPECT_EQ(told["received"], "2");
  EXPECT_EQ(told["total_bytes"], "4");
}

}  // namespace
}  // namespace transparent_llm
