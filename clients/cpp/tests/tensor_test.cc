#include "transparent_llm/tensor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "transparent_llm/errors.h"

namespace transparent_llm {
namespace {

Tensor of_bytes(Dtype dtype, std::vector<std::size_t> shape, const std::string& bytes) {
  return Tensor(dtype, std::move(shape), {}, std::as_bytes(std::span(bytes)));
}

template <class T>
concept GivesViews = requires(T&& tensor) {
  std::forward<T>(tensor).bytes();
  std::forward<T>(tensor).template as<float>();
};

// In `for (float x : llm.logits().as<float>())` the tensor would be gone before the first element.
static_assert(GivesViews<const Tensor&> && GivesViews<Tensor&>);
static_assert(!GivesViews<Tensor> && !GivesViews<const Tensor>);

std::string text(const char* bytes, std::size_t size) { return {bytes, size}; }

TEST(TensorTest, ReadsEveryDtypeFromLittleEndianBytes) {
  EXPECT_EQ(of_bytes(Dtype::kBool, {2}, text("\x01\x00", 2)).doubles(),
            (std::vector<double>{1, 0}));
  EXPECT_EQ(of_bytes(Dtype::kU8, {1}, "\xff").doubles()[0], 255);
  EXPECT_EQ(of_bytes(Dtype::kI8, {1}, "\xff").doubles()[0], -1);
  EXPECT_EQ(of_bytes(Dtype::kI16, {1}, text("\x00\x80", 2)).doubles()[0], -32768);
  EXPECT_EQ(of_bytes(Dtype::kI32, {1}, text("\x01\x00\x01\x00", 4)).doubles()[0], 65537);
  EXPECT_EQ(of_bytes(Dtype::kI64, {1}, std::string(8, '\xff')).doubles()[0], -1);
  EXPECT_EQ(of_bytes(Dtype::kF16, {1}, text("\x00\x3c", 2)).doubles()[0], 1);
  EXPECT_EQ(of_bytes(Dtype::kBF16, {1}, text("\x00\xc0", 2)).doubles()[0], -2);
  EXPECT_EQ(of_bytes(Dtype::kF32, {1}, text("\x00\x00\x80\x3f", 4)).doubles()[0], 1);
  EXPECT_EQ(of_bytes(Dtype::kF64, {1}, text("\x00\x00\x00\x00\x00\x00\xf0\x3f", 8)).doubles()[0],
            1);
}

TEST(TensorTest, ATemporaryOneGivesItsShapeAway) {
  std::size_t product = 1;
  for (const std::size_t length : of_bytes(Dtype::kU8, {2, 3}, "abcdef").shape()) product *= length;
  EXPECT_EQ(product, 6u);
}

TEST(TensorTest, DecodesHalvesToFloats) {
  const Tensor f16 = of_bytes(Dtype::kF16, {4}, text("\x01\x00\x00\x7c\x00\xfc\x00\x7e", 8));
  EXPECT_EQ(f16.floats()[0], 0x1p-24f);
  EXPECT_EQ(f16.floats()[1], INFINITY);
  EXPECT_EQ(f16.floats()[2], -INFINITY);
  EXPECT_TRUE(std::isnan(f16.floats()[3]));
  EXPECT_EQ(f16.as<std::uint16_t>()[3], 0x7e00);
  EXPECT_EQ(of_bytes(Dtype::kBF16, {1}, text("\x80\x3f", 2)).floats(), std::vector<float>{1});
}

TEST(TensorTest, GivesElementsOfTheirOwnTypeOnly) {
  const Tensor tensor = Tensor::of_floats(std::vector<float>{1, 2});
  EXPECT_EQ(tensor.as<float>()[1], 2);
  try {
    tensor.as<double>();
    FAIL();
  } catch (const InvalidRequestError& error) {
    EXPECT_EQ(error.reason(), "INVALID_DTYPE");
    EXPECT_EQ(error.metadata().at("got"), "F32");
  }
  EXPECT_THROW(of_bytes(Dtype::kI64, {1}, std::string(8, '\0')).floats(), InvalidRequestError);
  EXPECT_THROW(of_bytes(Dtype::kF64, {1}, std::string(8, '\0')).floats(), InvalidRequestError);
}

TEST(TensorTest, RefusesIntegersThatDoublesCannotHold) {
  const Tensor tensor =
      of_bytes(Dtype::kI64, {1}, text("\x01\x00\x00\x00\x00\x00\x20\x00", 8));  // 2^53 + 1
  EXPECT_THROW(tensor.doubles(), InvalidRequestError);
  EXPECT_EQ(tensor.as<std::int64_t>()[0], (std::int64_t{1} << 53) + 1);
}

TEST(TensorTest, FindsElementsByTheirIndices) {
  const Tensor tensor = of_bytes(Dtype::kU8, {2, 3}, "abcdef");
  EXPECT_EQ(tensor.at({1, 2}), 'f');
  EXPECT_EQ(tensor.at({0, 1}), 'b');
  EXPECT_THROW(tensor.at({2, 0}), IndexOutOfRangeError);
  EXPECT_THROW(tensor.at({0, 3}), IndexOutOfRangeError);
  EXPECT_THROW(tensor.at({0}), InvalidRequestError);
}

TEST(TensorTest, ScalarsAndEmptyTensorsAreTensors) {
  EXPECT_EQ(of_bytes(Dtype::kU8, {}, "a").at({}), 'a');
  const Tensor empty = of_bytes(Dtype::kF32, {3, 0}, "");
  EXPECT_EQ(empty.size(), 0u);
  EXPECT_TRUE(empty.floats().empty());
}

TEST(TensorTest, RefusesBytesThatDoNotFitTheShape) {
  EXPECT_THROW(of_bytes(Dtype::kF32, {2}, "abcd"), InvalidRequestError);
  EXPECT_THROW(of_bytes(Dtype::kU8, {std::size_t{1} << 32, std::size_t{1} << 32}, ""),
               InvalidRequestError);
  EXPECT_THROW(Tensor(Dtype::kU8, {1}, {"batch", "pos"}, std::as_bytes(std::span("a", 1))),
               InvalidRequestError);
}

TEST(DtypeTest, NamesAreThoseOfSafetensors) {
  EXPECT_EQ(name_of(Dtype::kBF16), "BF16");
  EXPECT_EQ(dtype_named("F16"), Dtype::kF16);
  EXPECT_EQ(dtype_named("float16"), std::nullopt);
}

}  // namespace
}  // namespace transparent_llm
