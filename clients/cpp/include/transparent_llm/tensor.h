// Tensors as they came from the server.

#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "transparent_llm/dtype.h"

namespace transparent_llm {

/// An array of numbers in C order, with named axes. It cannot be changed; copies share its
/// elements, so copying is cheap, and tensors may be read by many threads.
class Tensor {
 public:
  /// The elements of `T` in `as`: one C++ type for each dtype. BOOL is read as bytes, F16 and BF16
  /// as their bits.
  template <class T>
  static constexpr bool holds(Dtype dtype) noexcept;

  /// A tensor from raw elements, little-endian in C order, which are copied.
  ///
  /// Throws InvalidRequestError (INVALID_SHAPE) if the number of bytes is not what dtype and shape
  /// need, or if `dims` names another number of axes. No `dims` at all are fine: the axes then have
  /// no names.
  Tensor(Dtype dtype, std::vector<std::size_t> shape, std::vector<std::string> dims,
         std::span<const std::byte> bytes);

  /// A vector [n] of F32, as `Client::unembed` takes it. The elements are copied.
  static Tensor of_floats(std::span<const float> elements);

  Dtype dtype() const noexcept { return dtype_; }
  /// Length of each axis. Empty for a scalar.
  const std::vector<std::size_t>& shape() const& noexcept { return shape_; }
  std::vector<std::size_t> shape() && noexcept { return std::move(shape_); }
  /// Name of each axis, for example "batch", "pos", "d_model".
  const std::vector<std::string>& dims() const& noexcept { return dims_; }
  std::vector<std::string> dims() && noexcept { return std::move(dims_); }
  /// Number of elements.
  std::size_t size() const noexcept { return n_bytes_ / size_of(dtype_); }

  /// The elements as they lie in memory, little-endian. Valid as long as this tensor or a copy of
  /// it, and so not to be had of a temporary one: `llm.logits().bytes()` does not compile.
  std::span<const std::byte> bytes() const& noexcept { return {data_.get(), n_bytes_}; }
  std::span<const std::byte> bytes() const&& = delete;

  /// The elements without a copy: uint8_t for BOOL and U8, int8_t, int16_t, int32_t, int64_t, float
  /// for F32, double for F64, and uint16_t for the bits of F16 and BF16. Valid, and to be had, as
  /// `bytes`.
  ///
  /// Throws InvalidRequestError (INVALID_DTYPE) if the elements are of another type.
  template <class T>
  std::span<const T> as() const& {
    if (!holds<T>(dtype_)) throw_not_held();
    return {reinterpret_cast<const T*>(data_.get()), size()};
  }
  template <class T>
  std::span<const T> as() const&& = delete;

  /// The elements of an F32, F16 or BF16 tensor as single-precision numbers, exactly.
  ///
  /// Throws InvalidRequestError (INVALID_DTYPE) for any other type, which could lose digits.
  std::vector<float> floats() const;

  /// The elements of a tensor of any type as double-precision numbers, exactly.
  ///
  /// Throws InvalidRequestError (INVALID_DTYPE) for an I64 that double precision cannot hold.
  std::vector<double> doubles() const;

  /// One element, by an index for each axis.
  ///
  /// Throws IndexOutOfRangeError for an index outside its axis, InvalidRequestError for another
  /// number of indices, and as `doubles` does.
  double at(std::initializer_list<std::size_t> indices) const;

 private:
  friend class TensorAccess;  // of this library: makes tensors around memory that it has filled
  Tensor() = default;
  [[noreturn]] void throw_not_held() const;

  Dtype dtype_ = Dtype::kF32;
  std::vector<std::size_t> shape_;
  std::vector<std::string> dims_;
  std::shared_ptr<const std::byte[]> data_;
  std::size_t n_bytes_ = 0;
};

template <class T>
constexpr bool Tensor::holds(Dtype dtype) noexcept {
  switch (dtype) {
    case Dtype::kBool:
    case Dtype::kU8:
      return std::is_same_v<T, std::uint8_t>;
    case Dtype::kI8:
      return std::is_same_v<T, std::int8_t>;
    case Dtype::kI16:
      return std::is_same_v<T, std::int16_t>;
    case Dtype::kI32:
      return std::is_same_v<T, std::int32_t>;
    case Dtype::kI64:
      return std::is_same_v<T, std::int64_t>;
    case Dtype::kF16:
    case Dtype::kBF16:
      return std::is_same_v<T, std::uint16_t>;
    case Dtype::kF32:
      return std::is_same_v<T, float>;
    case Dtype::kF64:
      return std::is_same_v<T, double>;
  }
  return false;
}

}  // namespace transparent_llm
