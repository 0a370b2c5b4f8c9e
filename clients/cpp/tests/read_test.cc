#include "transparent_llm/read.h"

#include <gtest/gtest.h>

#include "expected.h"
#include "methods.h"
#include "transparent_llm/errors.h"

namespace transparent_llm {
namespace {

TEST(ReadTest, KnowsMethodsByName) {
  const Read read = Read::named(std::string("attention_output"), {0, 1, 2});
  EXPECT_EQ(read.method(), "attention_output");
  EXPECT_EQ(read.indices(), Read::attention_output(0, 1, 2).indices());
  EXPECT_THROW(Read::named("model_info", {}), InvalidRequestError);
  EXPECT_THROW(Read::named("residual_in", {}), InvalidRequestError);
  EXPECT_THROW(Read::named("logits", {1}), InvalidRequestError);
}

TEST(ReadTest, AnIndexThatIsNoInt32IsOutOfRange) {
  try {
    internal::call_of("run", {Read::residual_in(Index{1} << 40)}, {});
    FAIL();
  } catch (const IndexOutOfRangeError& error) {
    EXPECT_EQ(error.metadata().at("axis"), "layer");
    EXPECT_EQ(error.metadata().at("got"), "1099511627776");
  }
  EXPECT_NO_THROW(
      internal::call_of("run", {Read::residual_in(-1)}, {}));  // the server says what is wrong
}

/// Its request, with its parameters.
template <class Request>
Request asked_by(const Read& read) {
  Request request;
  for (const auto& [name, given] : read.parameters())
    internal::set_parameter(request, *internal::method_named(read.method()).parameter(name), given);
  return request;
}

TEST(ReadTest, ParametersBecomeFieldsOfTheRequest) {
  const Read read = Read::layer_lens(0, 3,
                                     {.minus_layer = 1,
                                      .point = ResidualPoint::kAfterAttn,
                                      .positions = {-1},
                                      .k = 5,
                                      .with_kl = true});
  const auto asked = asked_by<v1::LayerLensRequest>(read);
  EXPECT_EQ(read.indices().at(2), Index{1});
  EXPECT_EQ(asked.point(), v1::RESIDUAL_POINT_AFTER_ATTN);
  EXPECT_EQ(asked.positions_size(), 1);
  EXPECT_EQ(asked.k(), 5u);
  EXPECT_TRUE(asked.with_kl());
}

TEST(ReadTest, TakesParametersByTheirNames) {
  const Read read = Read::named("contribution_edges", {0, 1},
                                {{"threshold", 0.5}, {"renormalize", true}, {"norm", "l2"}});
  const auto asked = asked_by<v1::ContributionEdgesRequest>(read);
  EXPECT_EQ(asked.threshold(), 0.5);
  EXPECT_TRUE(asked.renormalize());
  EXPECT_EQ(asked.norm(), v1::CONTRIBUTION_NORM_L2);
  EXPECT_THROW(Read::named("contribution_edges", {0, 1}, {{"k", Index{1}}}), InvalidRequestError);
}

TEST(ReadTest, RefusesParametersThatCannotBe) {
  const std::map<std::string, Parameters> refused = {
      {"no choice", {{"point", "middle"}}},
      {"no list", {{"positions", Index{3}}}},
      {"too large in it", {{"token_ids", std::vector<Index>{Index{1} << 31}}}},
      {"negative", {{"k", Index{-1}}}},
      {"too large", {{"k", Index{1} << 32}}},
      {"no number", {{"k", "5"}}},
      {"no flag", {{"with_kl", Index{1}}}}};
  for (const auto& [name, parameters] : refused) {
    const Read read = Read::named("layer_lens", {0, 0}, parameters);
    EXPECT_THROW(internal::call_of("run", {read}, {}), InvalidRequestError) << name;
  }
  const Read read = Read::named("layer_lens", {0, 0}, {{"positions", std::vector<Index>(4097)}});
  EXPECT_THROW(internal::call_of("run", {read}, {}), TooLargeError);
}

internal::Expectation expectation_of(const Read& read) {
  internal::Expectation made{.method = &internal::method_named(read.method()),
                             .lengths = {{"pos", 5}}};
  internal::add_sizes(made, read);
  return made;
}

TEST(ReadTest, AParameterSaysHowLongAnAxisIs) {
  const auto two = expectation_of(Read::neuron_contributions(0, 1, 1, 2));
  const auto three = expectation_of(Read::neuron_contributions(0, 2, 1, 3));
  const auto header = [](std::size_t length) {
    return TensorHeader{.name = "neuron_contributions.ids",
                        .dtype = Dtype::kI64,
                        .shape = {length},
                        .dims = {"rank"}};
  };
  EXPECT_NO_THROW(internal::Expected({two}).check(header(2)));
  EXPECT_THROW(internal::Expected({two}).check(header(3)), InternalError);
  EXPECT_THROW(internal::Expected({two}).check(header(1)), InternalError);
  EXPECT_NO_THROW(internal::Expected({two, three}).check(header(3)));
  EXPECT_THROW(internal::Expected({two, three}).check(header(4)), InternalError);
  const std::vector<std::byte> bytes(24);
  const Parts came{{"ids", Tensor(Dtype::kI64, {3}, {"rank"}, bytes)}};
  EXPECT_NO_THROW(internal::require_own_sizes(three, came));
  EXPECT_THROW(internal::require_own_sizes(two, came), InternalError);
}

TEST(ReadTest, AnEmptyListOfPositionsStandsForAllOfThem) {
  const auto all = expectation_of(Read::layer_lens(0, 1, {.k = 2}));
  const auto some = expectation_of(Read::layer_lens(0, 1, {.positions = {-1}}));
  EXPECT_EQ(all.sizes.at(0).at("pos"), 5u);
  EXPECT_EQ(some.sizes.at(0).at("pos"), 1u);
}

}  // namespace
}  // namespace transparent_llm
