// Errors, options and the life of a client, against the server of the demo model.

#include "transparent_llm/client.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

#include "real_server.h"

namespace transparent_llm {
namespace {

using namespace std::chrono_literals;

template <class ErrorType, class Function>
std::string reason_of(Function call) {
  try {
    call();
  } catch (const ErrorType& error) {
    return error.reason();
  }
  return "nothing was thrown";
}

TEST(ClientTest, KnowsTheServer) {
  Client llm = Client::connect(test::real_server());
  EXPECT_TRUE(llm.is_serving());
  const ServerInfo info = llm.server_info();
  ASSERT_EQ(info.models.size(), 1u);
  EXPECT_EQ(info.models[0].info.name, "demo");
  EXPECT_EQ(info.models[0].digest.size(), 64u);
  EXPECT_EQ(info.models[0].d_ffn.size(), info.models[0].info.n_layers);
  EXPECT_EQ(llm.model_info().d_model, info.models[0].info.d_model);
}

TEST(ClientTest, ReadsDataSetsOfTheOperator) {
  Client llm = Client::connect(test::real_server());
  const ServerInfo info = llm.server_info();
  ASSERT_EQ(info.datasets.size(), 1u);
  EXPECT_EQ(info.datasets[0].name, "words");
  const std::vector<std::string> sentences = llm.dataset("words");
  EXPECT_EQ(sentences.size(), info.datasets[0].n_sentences);
  EXPECT_EQ(sentences.at(3), "from __future__ import annotations");
  EXPECT_EQ(reason_of<InvalidRequestError>([&] { llm.dataset("rhymes"); }), "INVALID_REQUEST");
}

TEST(ClientTest, NothingIsReadBeforeARun) {
  Client llm = Client::connect(test::real_server());
  EXPECT_EQ(reason_of<NotRunError>([&] { llm.logits(); }), "NOT_RUN");
  EXPECT_EQ(reason_of<NotRunError>([&] { llm.tokens(); }), "NOT_RUN");
  EXPECT_EQ(reason_of<NotRunError>([&] { llm.release(); }), "NOT_RUN");
  EXPECT_EQ(reason_of<NotRunError>([&] { llm.fetch({}); }), "NOT_RUN");
}

TEST(ClientTest, RefusalsOfTheServerKeepTheirWords) {
  Client llm = Client::connect(test::real_server());
  EXPECT_EQ(reason_of<InvalidRequestError>([&] { llm.run({}); }), "EMPTY_INPUT");
  EXPECT_EQ(reason_of<InvalidRequestError>([&] { llm.run_tokens({{2'000'000}}); }),
            "UNKNOWN_TOKEN");
  EXPECT_EQ(reason_of<TooLargeError>([&] { llm.run({std::string(100'000, 'a')}); }), "TOO_LONG");
  llm.run({"My lord"});
  try {
    llm.residual_in(99);
    FAIL();
  } catch (const IndexOutOfRangeError& error) {
    EXPECT_EQ(error.metadata().at("axis"), "layer");
    EXPECT_EQ(error.metadata().at("got"), "99");
  }
  EXPECT_EQ(reason_of<IndexOutOfRangeError>([&] { llm.residual_in(Index{1} << 32); }),
            "INDEX_OUT_OF_RANGE");
  EXPECT_EQ(reason_of<IndexOutOfRangeError>([&] { llm.decomposed_ffn_out(0, 99, 0); }),
            "INDEX_OUT_OF_RANGE");
  EXPECT_EQ(reason_of<InvalidRequestError>([&] { llm.unembed(Tensor::of_floats({}), true); }),
            "INVALID_SHAPE");
  EXPECT_EQ(reason_of<NotFoundError>([&] {
              Client::connect(test::real_server(), {.model = "nonesuch"}).run({"My lord"});
            }),
            "MODEL_NOT_FOUND");
}

TEST(ClientTest, AFailedRunLeavesTheOneBefore) {
  Client llm = Client::connect(test::real_server());
  llm.run({"My lord"});
  const std::string before = llm.run_id();
  EXPECT_THROW(llm.run({}), InvalidRequestError);
  EXPECT_EQ(llm.run_id(), before);
}

TEST(ClientTest, AReleasedRunIsRunAgain) {
  Client llm = Client::connect(test::real_server());
  llm.run({"A run that is released"});
  llm.release();
  EXPECT_EQ(llm.logits().shape()[0], 1u);
}

TEST(ClientTest, AReleasedRunIsRefusedWhereItMayNotBeRunAgain) {
  Client llm = Client::connect(test::real_server(), {.rerun = false});
  llm.run({"A run that is released for good"});
  llm.release();
  EXPECT_EQ(reason_of<NotFoundError>([&] { llm.logits(); }), "RUN_NOT_FOUND");
}

TEST(ClientTest, ValuesOfMoreThanMaxBytesAreRefused) {
  Client llm = Client::connect(test::real_server(), {.max_bytes = 1000});
  llm.run({"My lord"});
  EXPECT_EQ(reason_of<TooLargeError>([&] { llm.logits(); }), "TOO_LARGE");
  EXPECT_EQ(reason_of<TooLargeError>([&] { llm.decomposed_attn(0, 0); }), "TOO_LARGE");
  EXPECT_EQ(llm.neuron_output(0, 0).dims()[0], "d_model");  // and a smaller one still comes
}

TEST(ClientTest, WhatIsTooLargeToSendIsNotSent) {
  Client llm = Client::connect("127.0.0.1:1");
  const std::vector<std::byte> bytes(20 << 20);
  const Tensor large(Dtype::kU8, {bytes.size()}, {}, bytes);
  EXPECT_EQ(reason_of<TooLargeError>([&] { llm.unembed(large, true); }), "TOO_LARGE");
  EXPECT_EQ(reason_of<TooLargeError>([&] { llm.run({std::string(bytes.size(), 'a')}); }),
            "TOO_LARGE");
}

TEST(ClientTest, AClosedClientIsClosedForItsCopiesToo) {
  Client llm = Client::connect(test::real_server());
  Client twin = llm.copy();
  llm.run({"My lord"});
  twin.close();
  twin.close();
  EXPECT_EQ(reason_of<InvalidRequestError>([&] { llm.logits(); }), "INVALID_REQUEST");
  EXPECT_EQ(llm.batch_size(), 1u);  // what is here already needs no connection
}

TEST(ClientTest, AMovedClientGoesOn) {
  Client llm = Client::connect(test::real_server());
  llm.run({"My lord"});
  Client moved = std::move(llm);
  EXPECT_EQ(moved.batch_size(), 1u);
  EXPECT_THROW(llm.batch_size(), InvalidRequestError);  // NOLINT: what was moved from says so
}

TEST(ClientTest, ACallThatWasCancelledBeforeItBeganDoesNotBegin) {
  Client llm = Client::connect(test::real_server());
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(
      reason_of<CancelledError>([&] { llm.run({"My lord"}, {.stop_token = stop.get_token()}); }),
      "CANCELLED");
  EXPECT_NO_THROW(llm.run({"My lord"}));
}

TEST(ClientTest, ACallWithoutTimeIsNotDone) {
  Client llm = Client::connect(test::real_server());
  llm.run({"My lord"});
  EXPECT_EQ(reason_of<DeadlineError>([&] { llm.logits({.timeout = 0ms}); }), "DEADLINE_EXCEEDED");
  EXPECT_NO_THROW(llm.logits({.timeout = std::chrono::milliseconds::max()}));
}

TEST(ClientTest, WhereNobodyListensNobodyAnswers) {
  Client llm = Client::connect("127.0.0.1:1");
  try {
    llm.model_info();
    FAIL();
  } catch (const UnavailableError& error) {
    EXPECT_EQ(error.metadata().at("target"), "127.0.0.1:1");
    EXPECT_EQ(error.metadata().at("status"), "UNAVAILABLE");
  }
  EXPECT_FALSE(llm.is_serving());
}

TEST(ClientTest, OptionsThatContradictAreRefused) {
  const auto refuses = [](Options options) {
    EXPECT_THROW(Client::connect("127.0.0.1:1", std::move(options)), InvalidRequestError);
  };
  refuses({.token = "a\n"});
  refuses({.token = "\xc3\xa4"});
  refuses({.tls_cert = "cert.pem"});
  refuses({.tls_ca = "ca.pem", .tls_key = "key.pem"});
  refuses({.tls_cert = "cert.pem", .tls_key = "key.pem"});
  refuses({.tls_ca = "there-is-no-such-file.pem"});
  refuses({.tls_ca = testing::TempDir()});
  refuses({.max_bytes = 0});
  refuses({.reconnect = -1ms});
  EXPECT_THROW(Client::connect("http://127.0.0.1:1"), InvalidRequestError);
}

TEST(ClientTest, AFileThatIsNoPemIsRefused) {
  const std::string path = testing::TempDir() + "not.pem";
  std::ofstream(path) << "no certificate";
  EXPECT_THROW(Client::connect("127.0.0.1:1", {.tls_ca = path}), InvalidRequestError);
  std::remove(path.c_str());
}

}  // namespace
}  // namespace transparent_llm
