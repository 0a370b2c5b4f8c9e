// What values and tokens of a run are given as.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "transparent_llm/dtype.h"
#include "transparent_llm/index.h"
#include "transparent_llm/tensor.h"

namespace transparent_llm {

/// What a tensor that arrives in chunks is.
struct TensorHeader {
  /// The method's name, for example "residual_out".
  std::string name;
  Dtype dtype = Dtype::kF32;
  std::vector<std::size_t> shape;
  std::vector<std::string> dims;
  /// Bytes of all chunks together.
  std::uint64_t total_bytes = 0;
};

/// Takes the chunks of a value, in order and without gaps: `offset` is the place of the first byte.
/// It is called with offset 0 once more if the value had to be read again from its beginning (see
/// `Client::read_chunks`). It runs on the thread that reads. `header` and `bytes` are valid until
/// it returns: what is needed longer must be copied.
using ChunkSink = std::function<void(const TensorHeader& header, std::uint64_t offset,
                                     std::span<const std::byte> bytes)>;

/// The tensors of one value, by their names: those of the parts of a value of several, and the
/// method's own where it is one.
using Parts = std::map<std::string, Tensor>;

/// One token of a run.
struct TokenAt {
  std::size_t row = 0;
  std::size_t pos = 0;
  Index id = 0;
  /// That of the token by itself, leading space included.
  std::string text;

  bool operator==(const TokenAt&) const = default;
};

}  // namespace transparent_llm
