// What the server of the demo model answers.

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <thread>

#include "real_server.h"
#include "transparent_llm/client.h"

namespace transparent_llm {
namespace {

const std::vector<std::string> kSentences = {"To be or not to be", "My lord"};

std::string raw(const Tensor& tensor) {
  return {reinterpret_cast<const char*>(tensor.bytes().data()), tensor.bytes().size()};
}

class ValuesTest : public testing::Test {
 protected:
  void SetUp() override { llm.run(kSentences); }

  Client llm = Client::connect(test::real_server());
};

TEST_F(ValuesTest, ARunTellsTokensMaskAndBatchSize) {
  EXPECT_EQ(llm.batch_size(), 2u);
  const Tensor tokens = llm.tokens(), mask = llm.mask();
  EXPECT_EQ(tokens.dtype(), Dtype::kI64);
  EXPECT_EQ(tokens.dims(), (std::vector<std::string>{"batch", "pos"}));
  EXPECT_EQ(mask.shape(), tokens.shape());
  EXPECT_EQ(mask.at({0, 0}), 1);
  EXPECT_EQ(mask.at({1, mask.shape()[1] - 1}), 0);
  EXPECT_EQ(raw(llm.read(Read::tokens())), raw(tokens));  // the same over the wire
  EXPECT_EQ(llm.tokens({.slices = {{"pos", {.start = -1}}}}).shape(),
            (std::vector<std::size_t>{2, 1}));
}

TEST_F(ValuesTest, TokensAreTextAgain) {
  const Tensor tokens = llm.tokens({.slices = {{"batch", {.stop = 1}}}});
  std::string text;
  for (const std::string& word : llm.tokens_to_strings(tokens.as<Index>())) text += word;
  EXPECT_NE(text.find("To be or not to be"), std::string::npos);
  EXPECT_TRUE(llm.tokens_to_strings({}).empty());
}

TEST_F(ValuesTest, TokenIdsRunAsSentencesDo) {
  const Tensor logits = llm.logits();
  const Tensor tokens = llm.tokens(), mask = llm.mask();
  std::vector<std::vector<Index>> rows(2);
  for (std::size_t row = 0; row < 2; ++row) {
    for (std::size_t pos = 0; pos < tokens.shape()[1]; ++pos) {
      if (mask.at({row, pos}) != 0) rows[row].push_back(static_cast<Index>(tokens.at({row, pos})));
    }
  }
  const std::string run_id = llm.run_id();
  llm.run_tokens(rows);
  EXPECT_EQ(llm.run_id(), run_id);
  EXPECT_EQ(raw(llm.logits()), raw(logits));
}

TEST_F(ValuesTest, LayersFollowOneAnother) {
  const ModelInfo model = llm.model_info();
  for (Index layer = 0; layer + 1 < model.n_layers; ++layer) {
    EXPECT_EQ(raw(llm.residual_out(layer)), raw(llm.residual_in(layer + 1)));
  }
  const std::vector<float> after = llm.residual_after_attn(0).floats(),
                           ffn = llm.ffn_out(0).floats();
  const std::vector<float> out = llm.residual_out(0).floats();
  for (std::size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(after[i] + ffn[i], out[i], 1e-4f);
}

TEST_F(ValuesTest, TheLastLayerUnembedsToTheLogits) {
  const ModelInfo model = llm.model_info();
  const ReadOptions first{.slices = {{"batch", {.stop = 1}}, {"pos", {.stop = 1}}}};
  const Tensor residual = llm.residual_out(model.n_layers - 1, first);
  const std::vector<float> unembedded =
      llm.unembed(Tensor::of_floats(residual.floats()), true).floats();
  const std::vector<float> logits = llm.logits(first).floats();
  ASSERT_EQ(unembedded.size(), logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i) ASSERT_NEAR(unembedded[i], logits[i], 1e-3f);
}

TEST_F(ValuesTest, ProductsMadeHereHaveTheServersBits) {
  const ReadOptions dense{.slices = {{"d_model", {}}}};  // whole, but made by the server
  EXPECT_EQ(raw(llm.decomposed_attn(0, 1)), raw(llm.decomposed_attn(0, 1, dense)));
  const Tensor here = llm.decomposed_ffn_out(1, 2, 1),
               there = llm.decomposed_ffn_out(1, 2, 1, dense);
  EXPECT_EQ(raw(here), raw(there));
  EXPECT_EQ(here.dims(), there.dims());
  EXPECT_EQ(here.dtype(), there.dtype());
}

TEST_F(ValuesTest, NeuronsAndHeadsAreThoseOfTheirLayer) {
  const Tensor activations = llm.neuron_activations(0, 1, 2);
  const Tensor neuron = llm.neuron_output(1, 3);
  const Tensor contribution =
      llm.decomposed_ffn_out(0, 1, 2, {.slices = {{"hidden", {.start = 3, .stop = 4}}}});
  for (std::size_t i = 0; i < neuron.size(); ++i) {
    const float product = activations.as<float>()[3] * neuron.as<float>()[i];
    EXPECT_EQ(contribution.as<float>()[i], product);
  }
  const std::vector<float> pattern =
      llm.attention_matrix(0, 1, 0, {.slices = {{"query_pos", {.start = -1}}}}).floats();
  EXPECT_NEAR(std::accumulate(pattern.begin(), pattern.end(), 0.0f), 1, 1e-4f);
  EXPECT_EQ(llm.attention_output(0, 1, 2).shape(), llm.attention_output(0, 1, 2, 0).shape());
}

TEST_F(ValuesTest, FetchGivesWhatTheMethodsGive) {
  const std::vector<Tensor> fetched =
      llm.fetch({Read::residual_in(1), Read::decomposed_attn(0, 0), Read::logits(),
                 Read::decomposed_ffn_out(0, 1, 2), Read::tokens()});
  ASSERT_EQ(fetched.size(), 5u);
  EXPECT_EQ(raw(fetched[0]), raw(llm.residual_in(1)));
  EXPECT_EQ(raw(fetched[1]), raw(llm.decomposed_attn(0, 0)));
  EXPECT_EQ(raw(fetched[2]), raw(llm.logits()));
  EXPECT_EQ(raw(fetched[3]), raw(llm.decomposed_ffn_out(0, 1, 2)));
  EXPECT_EQ(raw(fetched[4]), raw(llm.tokens()));
  EXPECT_TRUE(llm.fetch({}).empty());
}

TEST_F(ValuesTest, ChunksAreTheValue) {
  std::string joined;
  std::uint64_t reported = 0;
  llm.read_chunks(
      Read::logits(),
      [&](const TensorHeader& header, std::uint64_t offset, std::span<const std::byte> bytes) {
        EXPECT_EQ(header.name, "logits");
        EXPECT_EQ(offset, joined.size());
        joined.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      },
      {.on_progress = [&](std::uint64_t received, std::uint64_t) { reported = received; }});
  EXPECT_EQ(joined, raw(llm.logits()));
  EXPECT_EQ(reported, joined.size());

  int calls = 0;
  llm.read_chunks(Read::logits(),
                  [&](const TensorHeader& header, std::uint64_t, std::span<const std::byte> bytes) {
                    ++calls;
                    EXPECT_EQ(header.shape[1], 0u);
                    EXPECT_TRUE(bytes.empty());
                  },
                  {.slices = {{"pos", {.stop = 0}}}});
  EXPECT_EQ(calls, 1);
}

TEST_F(ValuesTest, LessIsAskedForByAxisAndDtype) {
  const Tensor half = llm.residual_out(
      1, {.slices = {{"pos", {.start = -2, .stop = -1}}}, .dtype = Dtype::kBF16});
  EXPECT_EQ(half.dtype(), Dtype::kBF16);
  EXPECT_EQ(half.shape()[1], 1u);
  EXPECT_THROW(llm.residual_out(1, {.slices = {{"layer", {}}}}), InvalidRequestError);
  EXPECT_THROW(llm.residual_out(1, {.dtype = Dtype::kI64}), InvalidRequestError);
}

TEST_F(ValuesTest, AnAxisThatTheValueDoesNotHaveIsRefused) {
  const ReadOptions of_pos = {.slices = {{"pos", {}}}}, of_head = {.slices = {{"head", {}}}};
  EXPECT_THROW(llm.residual_out(1, of_head), InvalidRequestError);
  EXPECT_THROW(llm.tokens(of_head), InvalidRequestError);
  EXPECT_THROW(llm.mask(of_head), InvalidRequestError);
  EXPECT_THROW(llm.neuron_output(0, 0, of_pos), InvalidRequestError);
  EXPECT_THROW(llm.unembed(Tensor::of_floats(std::vector<float>(128)), true, of_pos),
               InvalidRequestError);
  EXPECT_THROW(llm.fetch({Read::logits(), Read::attention_matrix(0, 0, 0)}, of_pos),
               InvalidRequestError);
  EXPECT_THROW(llm.read_chunks(Read::logits(), {}, of_head), InvalidRequestError);
}

TEST_F(ValuesTest, TheTokensOfATextAreThoseOfARunOfIt) {
  const Tensor tokens = llm.tokens();
  const auto row = tokens.as<Index>().first(llm.last()[0] + 1);
  EXPECT_EQ(llm.to_tokens(kSentences[0]), std::vector<Index>(row.begin(), row.end()));
  EXPECT_EQ(llm.to_tokens(kSentences[0], false), std::vector<Index>(row.begin() + 1, row.end()));
  EXPECT_EQ(llm.to_str_tokens(kSentences[0]), llm.tokens_to_strings(row));
  EXPECT_EQ(llm.last()[1], llm.to_tokens(kSentences[1]).size() - 1);
  const auto listed = llm.describe_run();
  ASSERT_EQ(listed.size(), row.size() + llm.last()[1] + 1);
  EXPECT_EQ(listed[1], (TokenAt{0, 1, row[1], llm.to_str_tokens(kSentences[0])[1]}));
  EXPECT_EQ(listed[row.size()].row, 1u);
}

TEST_F(ValuesTest, TextThatIsNotOneTokenIsRefusedWithItsTokens) {
  EXPECT_EQ(llm.to_single_token(" lord"), llm.to_tokens(" lord", false)[0]);
  try {
    llm.to_single_token(" king of France");
    FAIL();
  } catch (const InvalidRequestError& error) {
    EXPECT_EQ(error.metadata().at("tokens"), "5");
    EXPECT_NE(std::string(error.what()).find(" is 5 tokens, not one: "), std::string::npos);
  }
  EXPECT_THROW(llm.to_single_token("\xff"), InvalidRequestError);
}

TEST_F(ValuesTest, UnembedTakesAMatrix) {
  const std::vector<float> numbers(3 * 128, 0.5F);
  const Tensor rows(Dtype::kF32, {3, 128}, {}, std::as_bytes(std::span(numbers)));
  const Tensor got = llm.unembed(rows, true, {.slices = {{"d_vocab", {.stop = 4}}}});
  EXPECT_EQ(got.dims(), (std::vector<std::string>{"n", "vocab"}));
  EXPECT_EQ(got.shape(), (std::vector<std::size_t>{3, 4}));
}

TEST_F(ValuesTest, FetchPartsBringsValuesUnderTheirNames) {
  const auto values = llm.fetch_parts({Read::logits(), Read::decomposed_attn(0, 1)});
  ASSERT_EQ(values.size(), 2u);
  EXPECT_EQ(raw(values[0].at("logits")), raw(llm.logits()));
  EXPECT_EQ(raw(values[1].at("decomposed_attn")), raw(llm.decomposed_attn(0, 1)));
}

TEST_F(ValuesTest, ACopyHasARunOfItsOwn) {
  Client twin = llm.copy();
  EXPECT_EQ(twin.run_id(), llm.run_id());
  twin.run({"Another sentence"});
  EXPECT_NE(twin.run_id(), llm.run_id());
  EXPECT_EQ(llm.batch_size(), 2u);
}

TEST_F(ValuesTest, CopiesReadAtTheSameTime) {
  const std::string expected = raw(llm.decomposed_ffn_out(0, 1, 2));
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([twin = llm.copy(), &expected]() mutable {
      for (int reads = 0; reads < 10; ++reads)
        EXPECT_EQ(raw(twin.decomposed_ffn_out(0, 1, 2)), expected);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace transparent_llm
