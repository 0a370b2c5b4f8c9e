#include "half.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

namespace transparent_llm::internal {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(HalfTest, ReadsF16) {
  EXPECT_EQ(from_f16(0x0000), 0.0f);
  EXPECT_TRUE(std::signbit(from_f16(0x8000)));
  EXPECT_EQ(from_f16(0x3c00), 1.0f);
  EXPECT_EQ(from_f16(0xc000), -2.0f);
  EXPECT_EQ(from_f16(0x7bff), 65504.0f);
  EXPECT_EQ(from_f16(0x0400), 0x1p-14f);         // the smallest normal number
  EXPECT_EQ(from_f16(0x03ff), 1023 * 0x1p-24f);  // the largest subnormal one
  EXPECT_EQ(from_f16(0x8001), -0x1p-24f);        // the smallest subnormal one
  EXPECT_EQ(from_f16(0x7c00), kInfinity);
  EXPECT_EQ(from_f16(0xfc00), -kInfinity);
  EXPECT_TRUE(std::isnan(from_f16(0x7e00)));
  EXPECT_TRUE(std::isnan(from_f16(0x7c01)));
}

TEST(HalfTest, ReadsBf16) {
  EXPECT_EQ(from_bf16(0x3f80), 1.0f);
  EXPECT_EQ(from_bf16(0xc000), -2.0f);
  EXPECT_EQ(from_bf16(0x0001), 0x1p-133f);  // a subnormal number
  EXPECT_EQ(from_bf16(0x7f80), kInfinity);
  EXPECT_EQ(from_bf16(0xff80), -kInfinity);
  EXPECT_TRUE(std::isnan(from_bf16(0x7fc0)));
  EXPECT_TRUE(std::signbit(from_bf16(0x8000)));
}

TEST(HalfTest, EveryHalfComesBackFromSingle) {
  for (std::uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    ASSERT_TRUE(std::isnan(from_f16(half)) || to_f16(from_f16(half)) == half) << half;
    ASSERT_TRUE(std::isnan(from_bf16(half)) || to_bf16(from_bf16(half)) == half) << half;
  }
}

TEST(HalfTest, RoundsEveryMiddleOfTwoF16ToEven) {
  for (std::uint16_t half = 0; half < 0x7bff; ++half) {
    const float low = from_f16(half), high = from_f16(static_cast<std::uint16_t>(half + 1));
    const float middle = (low + high) / 2;  // exact: single precision has 13 bits more
    ASSERT_EQ(to_f16(middle), half + (half & 1)) << half;
    ASSERT_EQ(to_f16(std::nextafter(middle, low)), half);
    ASSERT_EQ(to_f16(std::nextafter(middle, high)), half + 1);
    ASSERT_EQ(to_f16(-middle), 0x8000 | (half + (half & 1)));
  }
}

TEST(HalfTest, RoundsEveryMiddleOfTwoBf16ToEven) {
  for (std::uint16_t half = 0; half < 0x7f7f; ++half) {
    const float middle = std::bit_cast<float>(std::uint32_t{half} << 16 | 0x8000u);
    ASSERT_EQ(to_bf16(middle), half + (half & 1));
    ASSERT_EQ(to_bf16(std::nextafter(middle, 0.0f)), half);
    ASSERT_EQ(to_bf16(std::nextafter(middle, kInfinity)), half + 1);
  }
}

TEST(HalfTest, RoundsPastTheLargestToInfinity) {
  EXPECT_EQ(to_f16(65519.996f), 0x7bff);
  EXPECT_EQ(to_f16(65520.0f), 0x7c00);
  EXPECT_EQ(to_f16(-1e30f), 0xfc00);
  EXPECT_EQ(to_f16(kInfinity), 0x7c00);
  EXPECT_EQ(to_bf16(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_EQ(to_bf16(-kInfinity), 0xff80);
}

TEST(HalfTest, RoundsNanToTheBitsOfPyTorchsScalars) {
  struct Case {
    std::uint32_t single;
    int f16;
  };
  for (const auto& [single, f16] :
       {Case{0x7fc00000, 0x7e00}, Case{0xffc00000, 0xfe00}, Case{0x7f800001, 0x7e00},
        Case{0xff800001, 0xfe00}, Case{0x7fc12345, 0x7e09}, Case{0xffa00000, 0xff00},
        Case{0x7fffffff, 0x7fff}, Case{0xffffffff, 0xffff}}) {
    EXPECT_EQ(to_bf16(std::bit_cast<float>(single)), 0x7fc0) << std::hex << single;
    EXPECT_EQ(to_f16(std::bit_cast<float>(single)), f16) << std::hex << single;
  }
}

TEST(HalfTest, KeepsZero) {
  EXPECT_EQ(to_f16(-0.0f), 0x8000);
  EXPECT_EQ(to_f16(0x1p-25f), 0x0000);  // half of the smallest number, a tie
  EXPECT_EQ(to_f16(0x1.8p-25f), 0x0001);
  EXPECT_EQ(to_f16(1e-40f), 0x0000);
  EXPECT_EQ(to_bf16(-0.0f), 0x8000);
}

}  // namespace
}  // namespace transparent_llm::internal
