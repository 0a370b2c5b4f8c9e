// Products of factors that a server sends.

#include <gtest/gtest.h>

#include <atomic>
#include <future>

#include "scripted_server.h"
#include "transparent_llm/client.h"
#include "wire.h"

namespace transparent_llm {
namespace {

using test::ScriptedServer;
using test::Writer;

/// A model of one layer with three neurons and two coordinates, of which one neuron is computed.
class FactorsTest : public testing::Test {
 protected:
  Client connected(Options options = {}) {
    return Client::connect(server.address(), std::move(options));
  }

  void SetUp() override {
    server.on_server_info = [](v1::ServerInfoResponse* response) {
      response->add_features("neuron_outputs");
      v1::ModelDescription& model = *response->add_models();
      model.mutable_info()->set_name("demo");
      model.mutable_info()->set_d_model(2);
      model.set_digest(test::digest_of("digest"));
      model.set_dtype(v1::DTYPE_F32);
      model.add_d_ffn(3);
      return grpc::Status::OK;
    };
    server.on_neuron_outputs = [this](const v1::NeuronOutputsRequest& request, Writer* writer) {
      ++downloads;
      EXPECT_EQ(request.model_digest(), test::digest_of("digest"));
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
    server.on_fetch = [](const v1::FetchRequest& request, Writer* writer) {
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
  ScriptedServer server;
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

// One client asks what the server is before the model is there, and hears it after another one has
// heard more.
TEST_F(FactorsTest, ALateNegativeAnswerTakesNothingBack) {
  std::promise<void> first_asked, second_was_told, both_read;
  std::atomic<int> asked = 0, read = 0;
  server.on_server_info = [&, described = server.on_server_info](v1::ServerInfoResponse* response) {
    if (++asked > 1) return described(response);
    first_asked.set_value();
    second_was_told.get_future().wait();
    return grpc::Status::OK;
  };
  server.on_decomposed_ffn_out = [&](const v1::DecomposedFfnOutRequest& request, Writer* writer) {
    if (++read == 1) {
      second_was_told.set_value();
      both_read.get_future().wait();
    } else {
      both_read.set_value();
    }
    write_value(*writer, request.options().encoding() == v1::ENCODING_FACTORED);
    return grpc::Status::OK;
  };
  Client llm = connected();
  llm.run({"My lord"});
  Client twin = llm.copy();
  auto first = std::async(std::launch::async, [&] { return llm.decomposed_ffn_out(0, 0, 0); });
  first_asked.get_future().wait();
  EXPECT_EQ(twin.decomposed_ffn_out(0, 0, 0).floats(), kProduct);
  EXPECT_EQ(first.get().floats(), kProduct);
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

TEST_F(FactorsTest, OutputVectorsAreThoseOfTheModel) {
  for (const std::vector<std::uint64_t>& shape :
       {std::vector<std::uint64_t>{3, 3}, {4, 2}, {2, 3}}) {
    server.on_neuron_outputs = [&](const v1::NeuronOutputsRequest&, Writer* writer) {
      writer->Write(test::floats("neuron_outputs", shape, std::vector<float>(shape[0] * shape[1])));
      return grpc::Status::OK;
    };
    Client llm = connected();
    llm.run({"My lord"});
    EXPECT_THROW(llm.decomposed_ffn_out(0, 0, 0), InternalError);
  }
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
