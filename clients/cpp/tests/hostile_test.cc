// Servers that say what they should not, load models, lose runs, or never end.

#include <gtest/gtest.h>

#include <atomic>

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
      writer->Write(test::bytes_header(std::uint64_t{1} << 62));
      const std::string data(1000, 'x');
      for (std::uint64_t offset = 0; writer->Write(test::chunk(offset, data));
           offset += data.size())
        continue;
      gone = true;
      gone.notify_all();
      return grpc::Status::OK;
    };
  }

  std::atomic<bool> gone = false;
  ScriptedServer server;
};

const ChunkSink kIgnore = [](const TensorHeader&, std::uint64_t, std::span<const std::byte>) {};

TEST_F(HostileTest, BrokenStreamsAreInternalErrors) {
  std::vector<v1::TensorChunk> messages;
  server.on_residual_in = [&](const v1::ResidualInRequest&, Writer* writer) {
    for (const v1::TensorChunk& message : messages) writer->Write(message);
    return grpc::Status::OK;
  };
  Client llm = connected();
  llm.run({"My lord"});
  const std::vector<std::vector<v1::TensorChunk>> broken = {
      {},
      {test::chunk(0, "a")},
      {test::bytes_header(2, "a")},
      {test::bytes_header(1, "ab")},
      {test::bytes_header(1, "a"), test::bytes_header(1, "b")},
      {test::header({.name = "logits", .total_bytes = 1}, "a")},
      {test::header({.name = "residual_in.factor", .total_bytes = 1}, "a")},
  };
  for (const auto& one : broken) {
    messages = one;
    EXPECT_THROW(llm.residual_in(0), InternalError);
  }
  messages = {test::bytes_header(2, "ok")};
  EXPECT_EQ(llm.residual_in(0).size(), 2u);
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

TEST_F(HostileTest, AReadWithoutEndMissesItsDeadline) {
  write_without_end();
  Client llm = connected();
  llm.run({"My lord"});
  EXPECT_THROW(llm.read_chunks(Read::residual_in(0), kIgnore, {.timeout = 100ms}), DeadlineError);
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
  calls = -1000;
  try {
    llm.run({"My lord"}, {.timeout = 5ms});
    FAIL();
  } catch (const UnavailableError& error) {
    EXPECT_EQ(error.reason(), "LOADING");
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
    writer->Write(test::bytes_header(1, "a"));
    return grpc::Status::OK;
  };
  Client llm = connected();
  llm.run({"My lord"});
  EXPECT_THROW(llm.residual_in(0), NotFoundError);
  EXPECT_EQ(runs, 4);
  runs = 7;
  EXPECT_EQ(llm.residual_in(0).size(), 1u);
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
              (std::map<std::string, std::string>{{"was", "before"}, {"is", "now"}}));
  }
}

/// A model of one layer with three neurons and two coordinates, of which one neuron is computed.
class FactorsTest : public HostileTest {
 protected:
  void SetUp() override {
    server.on_server_info = [](v1::ServerInfoResponse* response) {
      response->add_features("neuron_outputs");
      v1::ModelDescription& model = *response->add_models();
      model.mutable_info()->set_name("demo");
      model.mutable_info()->set_d_model(2);
      model.set_digest("digest");
      model.set_dtype(v1::DTYPE_F32);
      model.add_d_ffn(3);
      return grpc::Status::OK;
    };
    server.on_neuron_outputs = [this](const v1::NeuronOutputsRequest& request, Writer* writer) {
      ++downloads;
      EXPECT_EQ(request.model_digest(), "digest");
      EXPECT_EQ(request.model(), "demo");
      writer->Write(test::floats("neuron_outputs", {3, 2}, {1, 2, 3, 4, 5, 6}));
      return grpc::Status::OK;
    };
    server.on_decomposed_ffn_out = [this](const v1::DecomposedFfnOutRequest& request,
                                          Writer* writer) {
      factored = request.options().encoding() == v1::ENCODING_FACTORED;
      write_value(*writer, factored);
      return grpc::Status::OK;
    };
    server.on_fetch = [this](const v1::FetchRequest& request, Writer* writer) {
      for (const v1::FetchItem& item : request.items()) {
        write_value(*writer,
                    item.decomposed_ffn_out().options().encoding() == v1::ENCODING_FACTORED);
      }
      return grpc::Status::OK;
    };
  }

  static void write_value(Writer& writer, bool factored) {
    if (!factored) {
      writer.Write(test::floats("decomposed_ffn_out", {3, 2}, {0, 0, 60, 120, 0, 0}));
      return;
    }
    const std::int64_t bounds[] = {1, 2};
    writer.Write(test::floats("decomposed_ffn_out.activations", {1}, {10}));
    writer.Write(test::floats("decomposed_ffn_out.gain", {2}, {2, 3}));
    writer.Write(test::header({.name = "decomposed_ffn_out.spans",
                               .dtype = v1::DTYPE_I64,
                               .shape = {1, 2},
                               .dims = {"span", "bound"},
                               .total_bytes = sizeof(bounds)},
                              std::string(reinterpret_cast<const char*>(bounds), sizeof(bounds))));
  }

  int downloads = 0;
  bool factored = false;
};

const std::vector<float> kProduct = {0, 0, 60, 120, 0, 0};

TEST_F(FactorsTest, WeightsAreFetchedOnceAndKept) {
  Client llm = connected();
  llm.run({"My lord"});
  Client twin = llm.copy();
  EXPECT_EQ(llm.decomposed_ffn_out(0, 0, 0).floats(), kProduct);
  EXPECT_EQ(twin.decomposed_ffn_out(0, 0, 1).floats(), kProduct);
  EXPECT_EQ(
      llm.fetch({Read::decomposed_ffn_out(0, 0, 0), Read::decomposed_ffn_out(0, 0, 1)})[1].floats(),
      kProduct);
  EXPECT_TRUE(factored);
  EXPECT_EQ(downloads, 1);
}

TEST_F(FactorsTest, WeightsThatCannotBeKeptStayWithTheServer) {
  Client llm = connected({.weights_bytes = 23});
  llm.run({"My lord"});
  EXPECT_EQ(llm.decomposed_ffn_out(0, 0, 0).floats(), kProduct);
  EXPECT_FALSE(factored);
  EXPECT_EQ(downloads, 0);
}

TEST_F(FactorsTest, AServerWithoutFactorsSendsTheValue) {
  server.on_decomposed_ffn_out = [](const v1::DecomposedFfnOutRequest&, Writer* writer) {
    write_value(*writer, false);
    return grpc::Status::OK;
  };
  Client llm = connected();
  llm.run({"My lord"});
  EXPECT_EQ(llm.decomposed_ffn_out(0, 0, 0).floats(), kProduct);
  EXPECT_EQ(downloads, 0);
}

TEST_F(FactorsTest, FactorsThatAreMissingAreAnInternalError) {
  server.on_decomposed_ffn_out = [](const v1::DecomposedFfnOutRequest&, Writer* writer) {
    writer->Write(test::floats("decomposed_ffn_out.gain", {2}, {2, 3}));
    return grpc::Status::OK;
  };
  Client llm = connected();
  llm.run({"My lord"});
  EXPECT_THROW(llm.decomposed_ffn_out(0, 0, 0), InternalError);
}

TEST_F(FactorsTest, AModelThatChangedIsToldOf) {
  server.on_neuron_outputs = [](const v1::NeuronOutputsRequest&, Writer*) {
    return test::status_of(grpc::NOT_FOUND, "MODEL_CHANGED", {{"was", "digest"}, {"is", "other"}});
  };
  Client llm = connected();
  llm.run({"My lord"});
  try {
    llm.decomposed_ffn_out(0, 0, 0);
    FAIL();
  } catch (const NotFoundError& error) {
    EXPECT_EQ(error.reason(), "MODEL_CHANGED");
    EXPECT_EQ(error.metadata().at("is"), "other");
  }
}

}  // namespace
}  // namespace transparent_llm
