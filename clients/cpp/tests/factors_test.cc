#include "factors.h"

#include <gtest/gtest.h>

#include <cstdint>

#include "half.h"
#include "transparent_llm/errors.h"

namespace transparent_llm::internal {
namespace {

template <class T>
Tensor tensor(Dtype dtype, std::vector<std::size_t> shape, const std::vector<T>& elements) {
  return Tensor(dtype, std::move(shape), {}, std::as_bytes(std::span(elements)));
}

Tensor floats(std::vector<std::size_t> shape, const std::vector<float>& elements) {
  return tensor(Dtype::kF32, std::move(shape), elements);
}

// Two targets, one source, one head, two coordinates.
const Tensor kPattern = floats({1, 2, 1}, {0.1f, 0.7f});
const Tensor kValueOut = floats({1, 1, 2}, {0.3f, -3.0f});

TEST(AttnFactorsTest, MultipliesInSinglePrecision) {
  const Tensor value = product(AttnFactors{kPattern, kValueOut, std::nullopt}, std::nullopt);
  EXPECT_EQ(value.shape(), (std::vector<std::size_t>{2, 1, 1, 2}));
  EXPECT_EQ(value.dims(), (std::vector<std::string>{"target", "source", "head", "d_model"}));
  EXPECT_EQ(value.floats(),
            (std::vector<float>{0.1f * 0.3f, 0.1f * -3.0f, 0.7f * 0.3f, 0.7f * -3.0f}));
}

TEST(AttnFactorsTest, MultipliesByTheGainLast) {
  const Tensor rows =
      product(AttnFactors{kPattern, kValueOut, floats({2, 2}, {3, 5, 7, 9})}, std::nullopt);
  EXPECT_EQ(rows.floats(), (std::vector<float>{(0.1f * 0.3f) * 3, (0.1f * -3.0f) * 5,
                                               (0.7f * 0.3f) * 7, (0.7f * -3.0f) * 9}));
  const Tensor scalar = product(AttnFactors{kPattern, kValueOut, floats({}, {0.9f})}, std::nullopt);
  EXPECT_EQ(scalar.floats()[3], (0.7f * -3.0f) * 0.9f);
}

TEST(AttnFactorsTest, RoundsOnceToTheDtypeOfThePattern) {
  const std::vector<std::uint16_t> halves = {to_f16(0.1f), to_f16(0.7f)};
  const Tensor pattern = tensor(Dtype::kF16, {1, 2, 1}, halves);
  const Tensor value = product(AttnFactors{pattern, kValueOut, floats({}, {1.1f})}, std::nullopt);
  ASSERT_EQ(value.dtype(), Dtype::kF16);
  EXPECT_EQ(value.as<std::uint16_t>()[0], to_f16((from_f16(halves[0]) * 0.3f) * 1.1f));
  EXPECT_EQ(value.as<std::uint16_t>()[3], to_f16((from_f16(halves[1]) * -3.0f) * 1.1f));
}

TEST(AttnFactorsTest, RoundsTiesToEvenInBf16) {
  const std::vector<std::uint16_t> ones = {to_bf16(1.0f), to_bf16(1.0f)};
  const Tensor pattern = tensor(Dtype::kBF16, {1, 2, 1}, ones);
  const Tensor value_out =
      floats({1, 1, 2}, {1.0f + 0x1p-8f, 1.0f + 0x1.8p-7f});  // both are middles of two
  const Tensor value = product(AttnFactors{pattern, value_out, std::nullopt}, std::nullopt);
  EXPECT_EQ(value.as<std::uint16_t>()[0], 0x3f80);
  EXPECT_EQ(value.as<std::uint16_t>()[1], 0x3f82);
}

TEST(AttnFactorsTest, RefusesFactorsThatDoNotFit) {
  const auto refuses = [](const AttnFactors& factors) {
    EXPECT_THROW(product(factors, std::nullopt), InternalError);
  };
  refuses({floats({2}, {1, 2}), kValueOut, std::nullopt});
  refuses({kPattern, floats({2, 1, 1}, {1, 2}), std::nullopt});
  refuses({kPattern, kValueOut, floats({2}, {1, 2})});
  refuses({kPattern, tensor<double>(Dtype::kF64, {1, 1, 2}, {1, 2}), std::nullopt});
  refuses({tensor<std::int32_t>(Dtype::kI32, {1, 2, 1}, {1, 2}), kValueOut, std::nullopt});
}

TEST(AttnFactorsTest, AnEmptyProductTakesNeitherTimeNorMemory) {
  const std::size_t huge = std::size_t{1} << 40;
  const Tensor wide = product(AttnFactors{floats({0, 1, 0}, {}), floats({0, 0, huge}, {}), {}}, 1);
  EXPECT_EQ(wide.shape(), (std::vector<std::size_t>{1, 0, 0, huge}));
  const Tensor tall = product(AttnFactors{floats({0, huge, 0}, {}), floats({0, 0, 1}, {}), {}}, 1);
  EXPECT_EQ(tall.size(), 0u);
}

TEST(AttnFactorsTest, RefusesAProductOfMoreThanMaxBytes) {
  EXPECT_THROW(product(AttnFactors{kPattern, kValueOut, std::nullopt}, 15), TooLargeError);
  EXPECT_NO_THROW(product(AttnFactors{kPattern, kValueOut, std::nullopt}, 16));
}

const Tensor kWeights = floats({3, 2}, {1, 2, 3, 4, 5, 6});

TEST(AttnFactorsTest, AProductThatNoMemoryHasIsTooLarge) {
  const std::size_t length = std::size_t{1} << 23;  // whose square has more bytes than addresses
  const Tensor pattern = floats({1, length, 1}, std::vector<float>(length));
  const Tensor value_out = floats({1, 1, length}, std::vector<float>(length));
  try {
    product(AttnFactors{pattern, value_out, std::nullopt}, std::nullopt);
    FAIL();
  } catch (const TooLargeError& error) {
    EXPECT_EQ(error.metadata().at("needed"), std::to_string(std::uint64_t{1} << 48));
  }
}

TEST(AttnFactorsTest, EndsWithItsCall) {
  EXPECT_THROW(product(AttnFactors{kPattern, kValueOut, std::nullopt}, {}, [] { throw 7; }), int);
  EXPECT_THROW(product(FfnFactors{floats({3}, {1, 2, 3}), std::nullopt, std::nullopt}, kWeights, {},
                       [] { throw 7; }),
               int);
}

TEST(FfnFactorsTest, MultipliesEachNeuron) {
  const Tensor value = product(
      FfnFactors{floats({3}, {0.1f, 0, -1}), floats({2}, {0.5f, 3}), std::nullopt}, kWeights, {});
  EXPECT_EQ(value.dims(), (std::vector<std::string>{"hidden", "d_model"}));
  EXPECT_EQ(value.floats(),
            (std::vector<float>{(0.1f * 1) * 0.5f, (0.1f * 2) * 3, 0, 0, -5 * 0.5f, -18}));
}

TEST(FfnFactorsTest, NeuronsOutsideTheSpansAreZero) {
  const Tensor spans =
      tensor<std::int64_t>(Dtype::kI64, {2, 2}, {2, 3, 0, 1});  // in the order of the activations
  const Tensor value =
      product(FfnFactors{floats({2}, {10, 100}), std::nullopt, spans}, kWeights, {});
  EXPECT_EQ(value.floats(), (std::vector<float>{100, 200, 0, 0, 50, 60}));
}

TEST(FfnFactorsTest, RefusesSpansThatContradict) {
  const auto refuses = [](const std::vector<std::int64_t>& bounds, std::size_t n_activations) {
    const Tensor spans = tensor(Dtype::kI64, {bounds.size() / 2, 2}, bounds);
    const Tensor activations = floats({n_activations}, std::vector<float>(n_activations, 1));
    EXPECT_THROW(product(FfnFactors{activations, std::nullopt, spans}, kWeights, {}),
                 InternalError);
  };
  refuses({0, 2}, 1);
  refuses({0, 4}, 4);
  refuses({-1, 1}, 2);
  refuses({2, 1}, 0);
  refuses({0, 2, 1, 3}, 4);
  refuses({0, 0, 0, 0, 0, 0, 0, 3}, 3);
  EXPECT_THROW(product(FfnFactors{floats({2}, {1, 2}), std::nullopt, std::nullopt}, kWeights, {}),
               InternalError);
}

TEST(FfnFactorsTest, DecodesWeightsAndRoundsToTheDtypeOfTheActivations) {
  const std::vector<std::uint16_t> weights = {to_bf16(1.5f), to_bf16(-2.0f)};
  const std::vector<std::uint16_t> activations = {to_bf16(0.3f)};
  const Tensor value =
      product(FfnFactors{tensor(Dtype::kBF16, {1}, activations), std::nullopt, std::nullopt},
              tensor(Dtype::kBF16, {1, 2}, weights), {});
  EXPECT_EQ(value.as<std::uint16_t>()[0], to_bf16(from_bf16(activations[0]) * 1.5f));
}

}  // namespace
}  // namespace transparent_llm::internal
