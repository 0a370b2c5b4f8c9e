// Makes tensors around memory that was filled already.

#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "transparent_llm/tensor.h"

namespace transparent_llm {

class TensorAccess {
 public:
  /// `n_bytes` must be what dtype and shape need.
  static Tensor wrap(Dtype dtype, std::vector<std::size_t> shape, std::vector<std::string> dims,
                     std::shared_ptr<const std::byte[]> data, std::size_t n_bytes) {
    Tensor tensor;
    tensor.dtype_ = dtype;
    tensor.shape_ = std::move(shape);
    tensor.dims_ = std::move(dims);
    tensor.data_ = std::move(data);
    tensor.n_bytes_ = n_bytes;
    return tensor;
  }
};

namespace internal {

/// Memory for a tensor; none if there is not so much. Without an exception, as some allocators end
/// the process instead of throwing one for a size like that of a liar.
inline std::shared_ptr<std::byte[]> memory_of(std::size_t n_bytes) {
  return std::shared_ptr<std::byte[]>(new (std::nothrow) std::byte[n_bytes]);
}

}  // namespace internal
}  // namespace transparent_llm
