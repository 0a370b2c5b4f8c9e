// Makes tensors around memory that was filled already.

#pragma once

#include <cstddef>
#include <memory>
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

}  // namespace transparent_llm
