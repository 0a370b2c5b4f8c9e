// Servers that say what they should not, load models, lose runs, or never end.

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <map>
#include <utility>

#include "scripted_server.h"
#include "transparent_llm/client.h"
#include "wire.h"

namespace transparent_llm {
namespace {

using namespace std::chrono_literals;
using test::ScriptedServer;
using test::Writer;

class HostileTest : public testing::Test {
 protected:
  Client connected(Options options = {}) {
    return Client::connect(server.address(), std::move(options));
  }

  /// An endless value: writes until the client is gone, and then says so.
  void write_without_end() {
    server.on_residual_in = [this](const v1::ResidualInRequest&, Writer* writer) {
      writer->Write(test::residual(std::uint64_t{1} << 46));
      const std::string data(1000, 'x');
      for (std::uint64_t offset = 0; writer->Write(test::chunk(offset, data));
           offset += data.size())
        continue;
      gone = true;
      gone.notify_all();
      return grpc::Status::OK;
    };
  }

  /// For each layer its messages. They are the server's own, as it may still write when the client
  /// has refused the first.
  void write_by_layer(std::vector<std::vector<v1::TensorChunk>> messages) {
    server.on_residual_in = [messages = std::move(messages)](const v1::ResidualInRequest& request,
                                                             Writer* writer) {
      for (const auto& message : messages.at(static_cast<std::size_t>(request.layer())))
        writer->Write(message);
      return grpc::Status::OK;
    };
  }

  std::atomic<bool> gone = false;
  ScriptedServer server;
};

const ChunkSink kIgnore = [](const TensorHeader&, std::uint64_t, std::span<const std::byte>) {};

TEST_F(HostileTest, DataSetsThatNoServerMaySendAreInternalErrors) {
  server.on_server_info = [](v1::ServerInfoResponse* response) {
    response->add_features("datasets");
    return grpc::Status::OK;
  };
  std::vector<std::string> sent;
  server.on_dataset = [&](const v1::DatasetRequest&, v1::DatasetResponse* response) {
    response->mutable_sentences()->Assign(sent.begin(), sent.end());
    return grpc::Status::OK;
  };
  Client llm = connected();
  const std::vector<std::vector<std::string>> lies = {{}, {"a", ""}, {1001, "a"}};
  for (const auto& lie : lies) {
    sent = lie;
    EXPECT_THROW(llm.dataset("words"), InternalError) << lie.size();
  }
}

TEST_F(HostileTest, BrokenStreamsAreInternalErrors) {
  write_by_layer({
      {},
      {test::chunk(0, "a")},
      {test::residual(4, "a")},
      {test::residual(4, "abcde")},
      {test::residual(4, "abcd"), test::residual(4, "abcd")},
      {test::header({.name = "logits", .total_bytes = 1}, "a")},
      {test::header({.name = "residual_in.factor", .total_bytes = 1}, "a")},
      {test::residual(4, "okay")},
  });
  Client llm = connected();
  llm.run({"My lord"});
  for (Index broken = 0; broken < 7; ++broken) {
    EXPECT_THROW(llm.residual_in(broken), InternalError);
  }
  EXPECT_EQ(llm.residual_in(7).size(), 2u);
}

TEST_F(HostileTest, HeadersWithoutEndEndACallAtOnce) {
  const auto write = [](Writer* writer) {
    while (writer->Write(test::residual(0))) continue;
    return grpc::Status::OK;
  };
  server.on_residual_in = [=](const v1::ResidualInRequest&, Writer* writer) {
    return write(writer);
  };
  server.on_fetch = [=](const v1::FetchRequest&, Writer* writer) { return write(writer); };
  Client llm = connected({.timeout = 60s});
  llm.run({"My lord"});
  EXPECT_THROW(llm.residual_in(0), InternalError);
  EXPECT_THROW(llm.fetch({Read::residual_in(0), Read::residual_in(1)}), InternalError);
  EXPECT_THROW(llm.read_chunks(Read::residual_in(0), kIgnore), InternalError);
}

TEST_F(HostileTest, AMessageThatCannotBeReadEndsTheCallAtOnce) {
  const v1::TensorChunk unreadable = test::header({.name = "no UTF-8: \xff"});
  const v1::TensorChunk whole = test::residual(4, "abcd");
  write_by_layer({{unreadable}, {unreadable, whole, whole}, {whole, unreadable}});
  Client llm = connected();
  llm.run({"My lord"});
  for (Index broken = 0; broken < 3; ++broken) {
    EXPECT_THROW(llm.residual_in(broken), InternalError);
  }
}

TEST_F(HostileTest, AnAnswerThatCannotBeReadIsAnInternalError) {
  server.on_run = [](const v1::RunRequest&, v1::RunResponse* response) {
    *response = test::run_response("no UTF-8: \xff", "digest");
    return grpc::Status::OK;
  };
  Client llm = connected();
  EXPECT_THROW(llm.run({"My lord"}), InternalError);
}

TEST_F(HostileTest, AnswersToRunThatContradictThemselvesAreInternalErrors) {
  server.on_run = [](const v1::RunRequest&, v1::RunResponse* response) {
    *response = test::run_response("run", "digest");
    response->set_n_pos(3'000'000'000);
    return grpc::Status::OK;
  };
  Client llm = connected();
  EXPECT_THROW(llm.run({"My lord"}), InternalError);
  EXPECT_THROW(llm.batch_size(), NotRunError);
}

/// A tensor of zeros.
v1::TensorChunk zeros(const std::string& name, v1::Dtype dtype,
                      const std::vector<std::pair<std::string, std::uint64_t>>& axes) {
  test::HeaderFields fields{.name = name, .dtype = dtype, .total_bytes = 0};
  fields.total_bytes = dtype == v1::DTYPE_F32 || dtype == v1::DTYPE_I32 ? 4 : 1;
  for (const auto& [axis, length] : axes) {
    fields.dims.push_back(axis);
    fields.shape.push_back(length);
    fields.total_bytes *= length;
  }
  return test::header(fields, std::string(fields.total_bytes, '\0'));
}

TEST_F(HostileTest, AValueIsWhatWasAskedFor) {
  constexpr auto kF32 = v1::DTYPE_F32;
  write_by_layer({
      {zeros("logits", kF32, {{"batch", 1}, {"pos", 2}, {"d_model", 3}})},
      {zeros("residual_in.gain", kF32, {{"batch", 1}, {"pos", 2}, {"d_model", 3}})},
      {zeros("residual_in", kF32, {{"batch", 1}, {"pos", 2}, {"nonsense", 3}})},
      {zeros("residual_in", kF32, {{"pos", 2}, {"batch", 1}, {"d_model", 3}})},
      {zeros("residual_in", kF32, {{"batch", 1}, {"pos", 2}, {"d_model", 3}, {"more", 1}})},
      {zeros("residual_in", kF32, {})},
      {zeros("residual_in", v1::DTYPE_I32, {{"batch", 1}, {"pos", 2}, {"d_model", 3}})},
      {zeros("residual_in", v1::DTYPE_BOOL, {{"batch", 1}, {"pos", 2}, {"d_model", 3}})},
      {zeros("residual_in", kF32, {{"batch", 2}, {"pos", 2}, {"d_model", 3}})},
      {zeros("residual_in", kF32, {{"batch", 1}, {"pos", 3}, {"d_model", 3}})},
      {zeros("residual_in", kF32, {{"batch", 1}, {"pos", 0}, {"d_model", 3}})},
      {zeros("residual_in", kF32, {{"batch", 1}, {"pos", 2}, {"d_model", 3}})},
      {zeros("residual_in", kF32, {{"batch", 1}, {"pos", 1}, {"d_model", 3}})},
  });
  Client llm = connected();
  llm.run({"My lord"});
  for (Index lie = 0; lie < 11; ++lie) {
    EXPECT_THROW(llm.residual_in(lie), InternalError) << lie;
    EXPECT_THROW(llm.read_chunks(Read::residual_in(lie), kIgnore), InternalError) << lie;
  }
  EXPECT_EQ(llm.residual_in(11).size(), 6u);
  EXPECT_THROW(llm.residual_in(11, {.dtype = Dtype::kBF16}), InternalError);
  const ReadOptions last{.slices = {{"pos", {.start = -1}}}};
  EXPECT_THROW(llm.residual_in(11, last), InternalError);
  EXPECT_EQ(llm.residual_in(12, last).size(), 3u);
}

TEST_F(HostileTest, ARunIsWhatWasSent) {
  const std::vector<std::function<void(v1::RunResponse&)>> lies = {
      [](v1::RunResponse& told) { told.Clear(); },
      [](v1::RunResponse& told) { told.set_batch_size(2), told.set_n_pos(1); },
      [](v1::RunResponse& told) { told.set_batch_size(1u << 31), told.set_n_pos(1u << 31); },
      [](v1::RunResponse& told) { told.clear_token_ids(), told.set_n_pos(0); },
      [](v1::RunResponse& told) { told.add_mask(true); },
      [](v1::RunResponse& told) { told.clear_run_id(); },
      [](v1::RunResponse& told) { told.set_run_id(std::string(1 << 20, 'x')); },
      [](v1::RunResponse& told) { told.clear_model_digest(); },
      [](v1::RunResponse& told) { told.set_model_digest("../../" + told.model_digest()); },
      [](v1::RunResponse& told) { told.set_model_digest(told.model_digest() + "0"); },
      [](v1::RunResponse& told) { told.set_model_digest(std::string(64, 'A')); },
      [](v1::RunResponse& told) { told.set_model_digest(std::string(64, '\x1b')); },
  };
  for (const auto& lie : lies) {
    server.on_run = [&](const v1::RunRequest&, v1::RunResponse* response) {
      *response = test::run_response("run", "model");
      lie(*response);
      return grpc::Status::OK;
    };
    Client llm = connected();
    try {
      llm.run({"My lord"});
      ADD_FAILURE() << "it was believed";
    } catch (const InternalError& error) {
      const std::string said = error.what();
      EXPECT_LT(said.size(), 500u);
      EXPECT_EQ(said.find('\x1b'), std::string::npos);
    }
  }
  server.on_run = {};
  EXPECT_THROW(connected().run_tokens({{1, 2, 3}}), InternalError);
  EXPECT_NO_THROW(connected().run_tokens({{1, 2}}));
}

TEST_F(HostileTest, ADigestOfADescriptionIsOne) {
  const std::map<std::string, bool> digests = {{test::digest_of("model"), true},
                                               {"", true},
                                               {"../x", false},
                                               {"/etc/passwd", false},
                                               {std::string(64, 'F'), false}};
  for (const auto& [digest, fits] : digests) {
    server.on_server_info = [&told = digest](v1::ServerInfoResponse* response) {
      response->add_models()->set_digest(told);
      return grpc::Status::OK;
    };
    if (fits) {
      EXPECT_NO_THROW(connected().server_info());
    } else {
      EXPECT_THROW(connected().server_info(), InternalError) << digest;
    }
  }
}

TEST_F(HostileTest, AServerThatTellsNoMaskHasNone) {
  Client llm = connected();
  llm.run({"My lord"});
  EXPECT_THROW(llm.mask(), NotSupportedError);
}

TEST_F(HostileTest, ACancelledReadEndsAtOnceAndTheServerHears) {
  write_without_end();
  Client llm = connected();
  llm.run({"My lord"});
  std::stop_source stop;
  const ChunkSink sink = [&](const TensorHeader&, std::uint64_t, std::span<const std::byte>) {
    stop.request_stop();
  };
  EXPECT_THROW(llm.read_chunks(Read::residual_in(0), sink, {.stop_token = stop.get_token()}),
               CancelledError);
  gone.wait(false);
  EXPECT_NO_THROW(llm.run({"My lord"}));
}

TEST_F(HostileTest, ReadsUnderWayEndWithTheClient) {
  write_without_end();
  Client llm = connected();
  llm.run({"My lord"});
  const ChunkSink sink = [&](const TensorHeader&, std::uint64_t, std::span<const std::byte>) {
    llm.close();
  };
  EXPECT_THROW(llm.read_chunks(Read::residual_in(0), sink), CancelledError);
  gone.wait(false);
}

TEST_F(HostileTest, WhatTheReaderThrowsComesOut) {
  write_without_end();
  Client llm = connected();
  llm.run({"My lord"});
  const ChunkSink sink = [](const TensorHeader&, std::uint64_t, std::span<const std::byte>) {
    throw 7;
  };
  EXPECT_THROW(llm.read_chunks(Read::residual_in(0), sink), int);
  gone.wait(false);
}

TEST_F(HostileTest, AnErrorThatTheReaderThrowsIsNotTakenForTheServers) {
  write_without_end();
  Client llm = connected();
  llm.run({"My lord"});
  int calls = 0;
  const ChunkSink sink = [&](const TensorHeader&, std::uint64_t, std::span<const std::byte>) {
    ++calls;
    throw NotFoundError("of another client",
                        {.reason = "RUN_NOT_FOUND", .metadata = {}, .retry_after = {}});
  };
  EXPECT_THROW(llm.read_chunks(Read::residual_in(0), sink), NotFoundError);
  EXPECT_EQ(calls, 1);
  gone.wait(false);
}

TEST_F(HostileTest, AReadWithoutEndMissesItsDeadline) {
  write_without_end();
  Client llm = connected();
  llm.run({"My lord"});
  bool has_begun = false;  // before that the server may not have heard of the call
  const ChunkSink sink = [&](const TensorHeader&, std::uint64_t, std::span<const std::byte>) {
    has_begun = true;
  };
  for (std::chrono::milliseconds timeout = 100ms; !has_begun && timeout < 60s; timeout *= 2) {
    EXPECT_THROW(llm.read_chunks(Read::residual_in(0), sink, {.timeout = timeout}), DeadlineError);
  }
  ASSERT_TRUE(has_begun);
  gone.wait(false);
}

TEST_F(HostileTest, AModelThatLoadsIsWaitedForAsLongAsTheServerSays) {
  int calls = 0;
  server.on_run = [&](const v1::RunRequest&, v1::RunResponse* response) {
    if (++calls < 3) return test::status_of(grpc::UNAVAILABLE, "LOADING", {{"model", "demo"}}, 10);
    *response = test::run_response("run", "digest");
    return grpc::Status::OK;
  };
  Client llm = connected();
  llm.run({"My lord"});
  EXPECT_EQ(calls, 3);
}

TEST_F(HostileTest, AModelThatLoadsForLongerThanTheCallMayTakeIsToldOfAtOnce) {
  server.on_run = [](const v1::RunRequest&, v1::RunResponse*) {
    return test::status_of(grpc::UNAVAILABLE, "LOADING", {{"model", "demo"}}, 1000 * 3600);
  };
  Client llm = connected();
  try {
    llm.run({"My lord"});
    FAIL();
  } catch (const UnavailableError& error) {
    EXPECT_EQ(error.reason(), "LOADING");
    EXPECT_EQ(error.retry_after(), Seconds(3600));
  }
}

TEST_F(HostileTest, AServerThatStartsIsNotWaitedFor) {
  int calls = 0;
  server.on_run = [&](const v1::RunRequest&, v1::RunResponse*) {
    ++calls;
    return test::status_of(grpc::UNAVAILABLE, "LOADING", {}, 10);
  };
  Client llm = connected();
  EXPECT_THROW(llm.run({"My lord"}), UnavailableError);
  EXPECT_EQ(calls, 1);
}

TEST_F(HostileTest, ARunThatIsAlwaysLostIsMadeThreeTimesMore) {
  int runs = 0;
  server.on_run = [&](const v1::RunRequest&, v1::RunResponse* response) {
    *response = test::run_response("run-" + std::to_string(++runs), "digest");
    return grpc::Status::OK;
  };
  server.on_residual_in = [&](const v1::ResidualInRequest& request, Writer* writer) {
    if (request.run_id() != "run-9") return test::status_of(grpc::NOT_FOUND, "RUN_NOT_FOUND");
    writer->Write(test::residual(4, "abcd"));
    return grpc::Status::OK;
  };
  Client llm = connected();
  llm.run({"My lord"});
  EXPECT_THROW(llm.residual_in(0), NotFoundError);
  EXPECT_EQ(runs, 4);
  runs = 7;
  EXPECT_EQ(llm.residual_in(0).size(), 2u);
  EXPECT_EQ(llm.run_id(), "run-9");
}

TEST_F(HostileTest, ALostRunOfAnotherModelIsNotReadOn) {
  int runs = 0;
  server.on_run = [&](const v1::RunRequest&, v1::RunResponse* response) {
    *response = test::run_response("run", ++runs == 1 ? "before" : "now");
    return grpc::Status::OK;
  };
  server.on_residual_in = [](const v1::ResidualInRequest&, Writer*) {
    return test::status_of(grpc::NOT_FOUND, "RUN_NOT_FOUND");
  };
  Client llm = connected();
  llm.run({"My lord"});
  try {
    llm.residual_in(0);
    FAIL();
  } catch (const NotFoundError& error) {
    EXPECT_EQ(error.reason(), "MODEL_CHANGED");
    EXPECT_EQ(error.metadata(),
              (std::map<std::string, std::string>{{"was", test::digest_of("before")},
                                                  {"is", test::digest_of("now")}}));
  }
}

}  // namespace
}  // namespace transparent_llm
