#include "transparent_llm/tensor.h"

#include <bit>
#include <cstring>
#include <utility>

#include "half.h"
#include "sizes.h"
#include "transparent_llm/errors.h"

namespace transparent_llm {
namespace {

static_assert(std::endian::native == std::endian::little,
              "tensors travel little-endian and are not converted");
static_assert(sizeof(std::size_t) == 8, "shapes have 64 bits");

constexpr std::int64_t kExactInDouble = std::int64_t{1} << 53;

std::string text_of(const std::vector<std::size_t>& shape) {
  std::string text = "[";
  for (const std::size_t length : shape)
    text += (text.size() > 1 ? ", " : "") + std::to_string(length);
  return text + "]";
}

InvalidRequestError wrong_dtype(Dtype got, const std::string& message) {
  return InvalidRequestError(message, {.reason = "INVALID_DTYPE",
                                       .metadata = {{"got", std::string(name_of(got))}},
                                       .retry_after = {}});
}

template <class T>
T element(const std::byte* data, std::size_t index) {
  T value;
  std::memcpy(&value, data + index * sizeof(T), sizeof(T));
  return value;
}

double integer(std::int64_t value) {
  if (value > kExactInDouble || value < -kExactInDouble) {
    throw wrong_dtype(Dtype::kI64, std::to_string(value) +
                                       " has more digits than double precision; use as<int64_t>()");
  }
  return static_cast<double>(value);
}

double number(Dtype dtype, const std::byte* data, std::size_t index) {
  switch (dtype) {
    case Dtype::kBool:
    case Dtype::kU8:
      return element<std::uint8_t>(data, index);
    case Dtype::kI8:
      return element<std::int8_t>(data, index);
    case Dtype::kI16:
      return element<std::int16_t>(data, index);
    case Dtype::kI32:
      return element<std::int32_t>(data, index);
    case Dtype::kI64:
      return integer(element<std::int64_t>(data, index));
    case Dtype::kF16:
      return internal::from_f16(element<std::uint16_t>(data, index));
    case Dtype::kBF16:
      return internal::from_bf16(element<std::uint16_t>(data, index));
    case Dtype::kF32:
      return element<float>(data, index);
    case Dtype::kF64:
      return element<double>(data, index);
  }
  throw wrong_dtype(dtype, "an element type that does not exist");
}

}  // namespace

Tensor::Tensor(Dtype dtype, std::vector<std::size_t> shape, std::vector<std::string> dims,
               std::span<const std::byte> bytes)
    : dtype_(dtype), shape_(std::move(shape)), dims_(std::move(dims)), n_bytes_(bytes.size()) {
  const auto needed = internal::bytes_of(std::span<const std::size_t>(shape_), size_of(dtype_));
  if (needed != bytes.size() || (!dims_.empty() && dims_.size() != shape_.size())) {
    const std::string expected =
        needed ? std::to_string(*needed) + " bytes" : "more than memory can have";
    throw InvalidRequestError(
        "a " + std::string(name_of(dtype_)) + " tensor of shape " + text_of(shape_) + " has " +
            expected + ", got " + std::to_string(bytes.size()) + " and " +
            std::to_string(dims_.size()) + " names of axes",
        {.reason = "INVALID_SHAPE",
         .metadata = {{"expected", expected}, {"got", std::to_string(bytes.size())}},
         .retry_after = {}});
  }
  auto copy = std::make_shared_for_overwrite<std::byte[]>(bytes.size());
  if (!bytes.empty()) std::memcpy(copy.get(), bytes.data(), bytes.size());
  data_ = std::move(copy);
}

Tensor Tensor::of_floats(std::span<const float> elements) {
  return Tensor(Dtype::kF32, {elements.size()}, {}, std::as_bytes(elements));
}

std::vector<float> Tensor::floats() const {
  if (dtype_ == Dtype::kF32) {
    const auto elements = as<float>();
    return {elements.begin(), elements.end()};
  }
  if (dtype_ != Dtype::kF16 && dtype_ != Dtype::kBF16) {
    throw wrong_dtype(dtype_, "single precision cannot hold all numbers of " +
                                  std::string(name_of(dtype_)) + "; use doubles() or as<T>()");
  }
  const auto from = dtype_ == Dtype::kF16 ? internal::from_f16 : internal::from_bf16;
  std::vector<float> decoded;
  decoded.reserve(size());
  for (const std::uint16_t bits : as<std::uint16_t>()) decoded.push_back(from(bits));
  return decoded;
}

std::vector<double> Tensor::doubles() const {
  std::vector<double> numbers(size());
  for (std::size_t index = 0; index < numbers.size(); ++index)
    numbers[index] = number(dtype_, data_.get(), index);
  return numbers;
}

double Tensor::at(std::initializer_list<std::size_t> indices) const {
  if (indices.size() != shape_.size()) {
    throw InvalidRequestError("this tensor has " + std::to_string(shape_.size()) + " axes, got " +
                              std::to_string(indices.size()) + " indices");
  }
  std::size_t place = 0;
  std::size_t axis = 0;
  for (const std::size_t index : indices) {
    const std::size_t length = shape_[axis];
    if (index >= length) {
      const std::string name = axis < dims_.size() ? dims_[axis] : "axis " + std::to_string(axis);
      throw IndexOutOfRangeError(
          name + " " + std::to_string(index) + " is out of range: it has " + std::to_string(length),
          {.reason = {},
           .metadata = {{"axis", name},
                        {"size", std::to_string(length)},
                        {"got", std::to_string(index)}},
           .retry_after = {}});
    }
    place = place * length + index;
    ++axis;
  }
  return number(dtype_, data_.get(), place);
}

void Tensor::throw_not_held() const {
  throw wrong_dtype(dtype_, "the elements are " + std::string(name_of(dtype_)) +
                                ", which that type cannot hold");
}

}  // namespace transparent_llm
