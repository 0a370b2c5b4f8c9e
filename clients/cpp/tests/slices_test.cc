#include "slices.h"

#include <gtest/gtest.h>

#include <limits>

#include "transparent_llm/errors.h"

namespace transparent_llm::internal {
namespace {

constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min();
constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();

std::string cut_text(const std::string& text, const Slice& slice) {
  const Tensor whole(Dtype::kU8, {1, text.size()}, {"batch", "pos"},
                     std::as_bytes(std::span(text)));
  const Tensor part = cut(whole, {.slices = {{"pos", slice}}});
  return {reinterpret_cast<const char*>(part.bytes().data()), part.bytes().size()};
}

TEST(SlicesTest, CutsAsPythonDoes) {
  EXPECT_EQ(cut_text("abcdef", {}), "abcdef");
  EXPECT_EQ(cut_text("abcdef", {.start = -1}), "f");
  EXPECT_EQ(cut_text("abcdef", {.start = 1, .stop = -1, .step = 2}), "bd");
  EXPECT_EQ(cut_text("abcdef", {.start = -99, .stop = 99}), "abcdef");
  EXPECT_EQ(cut_text("abcdef", {.start = 4, .stop = 2}), "");
  EXPECT_EQ(cut_text("abcdef", {.stop = 0}), "");
  EXPECT_EQ(cut_text("abcdef", {.start = kLeast, .stop = kMost, .step = kMost}), "a");
  EXPECT_EQ(cut_text("", {.start = -1}), "");
}

TEST(SlicesTest, CutsSeveralAxes) {
  const std::string text = "abcdef";
  const Tensor whole(Dtype::kU8, {2, 3}, {"batch", "pos"}, std::as_bytes(std::span(text)));
  const Tensor part = cut(whole, {.slices = {{"batch", {.start = 1}}, {"pos", {.step = 2}}}});
  EXPECT_EQ(part.shape(), (std::vector<std::size_t>{1, 2}));
  EXPECT_EQ(part.doubles(), (std::vector<double>{'d', 'f'}));
}

TEST(SlicesTest, RefusesWhatCanNeverBeRight) {
  const auto reason = [](const ReadOptions& options) {
    try {
      require_valid(options);
    } catch (const InvalidRequestError& error) {
      return error.reason() + " " +
             (error.metadata().contains("axis") ? error.metadata().at("axis") : "");
    }
    return std::string("none");
  };
  EXPECT_EQ(reason({.slices = {{"layers", {}}}}), "INVALID_SLICE layers");
  EXPECT_EQ(reason({.slices = {{"pos", {.step = 0}}}}), "INVALID_SLICE pos");
  EXPECT_EQ(reason({.dtype = Dtype::kI32}), "INVALID_DTYPE ");
  EXPECT_EQ(reason({.slices = {{"pos", {.start = 9, .stop = -9}}}, .dtype = Dtype::kF16}), "none");
}

TEST(SlicesTest, RefusesAnAxisThatTheValueDoesNotHave) {
  static constexpr std::string_view kDims[] = {"batch", "vocab"};
  require_axes("unembed", kDims, {.slices = {{"batch", {}}, {"d_vocab", {}}}});
  try {
    require_axes("unembed", kDims, {.slices = {{"vocab", {}}, {"pos", {}}}});
    FAIL();
  } catch (const InvalidRequestError& error) {
    EXPECT_EQ(error.reason() + " " + error.metadata().at("axis"), "INVALID_SLICE pos");
    const std::string words =
        "unembed has no axis 'pos', which ReadOptions::slices cuts; its axes are batch, d_vocab: ";
    EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
  }
}

TEST(SlicesTest, TheAxisOfTheVocabularyHasTwoNames) {
  for (const std::string given : {"vocab", "d_vocab"}) {
    for (const std::string_view held : {"vocab", "d_vocab"}) {
      v1::TensorOptions wire;
      fill(wire, std::span(&held, 1), {.slices = {{given, {.stop = 3}}}}, true);
      ASSERT_EQ(wire.slices_size(), 1);
      EXPECT_EQ(wire.slices(0).axis(), held);
    }
  }
  EXPECT_THROW(require_valid({.slices = {{"vocab", {}}, {"d_vocab", {}}}}), InvalidRequestError);
}

TEST(SlicesTest, AsksForTheAxesThatAreCut) {
  v1::TensorOptions wire;
  static constexpr std::string_view kDims[] = {"batch", "pos"};
  fill(wire, kDims, {.slices = {{"pos", {.start = -1}}}, .dtype = Dtype::kBF16}, true);
  ASSERT_EQ(wire.slices_size(), 1);
  EXPECT_EQ(wire.slices(0).axis(), "pos");
  EXPECT_EQ(wire.slices(0).start(), -1);
  EXPECT_FALSE(wire.slices(0).has_stop());
  EXPECT_EQ(wire.dtype(), v1::DTYPE_BF16);
}

}  // namespace
}  // namespace transparent_llm::internal
