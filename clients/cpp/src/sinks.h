// What becomes of the data of a stream: tensors in memory, or calls of the reader's function.

#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "assembler.h"

namespace transparent_llm::internal {

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

/// Keeps whole tensors. Memory for each is taken once, when its header comes.
class Collector final : public StreamSink {
 public:
  /// `most` is how many tensors were asked for, so that nobody can fill the memory with headers.
  explicit Collector(std::size_t most) : most_(most) {}

  void begin(const TensorHeader& header) override;
  void take(std::uint64_t offset, std::span<const std::byte> data) override;
  void drop_last() override { arriving_.pop_back(); }
  void clear() override { arriving_.clear(); }

  /// The tensors of a finished stream.
  std::vector<NamedTensor> tensors() &&;

 private:
  struct Arriving {
    TensorHeader header;
    std::shared_ptr<std::byte[]> memory;
  };
  const std::size_t most_;
  std::vector<Arriving> arriving_;
};

/// Hands the chunks of one tensor on.
class Forwarder final : public StreamSink {
 public:
  explicit Forwarder(const ChunkSink& sink) : sink_(sink) {}

  void begin(const TensorHeader& header) override;
  void take(std::uint64_t offset, std::span<const std::byte> data) override {
    sink_(*header_, offset, data);
  }
  void drop_last() override { header_.reset(); }
  void clear() override { header_.reset(); }

  /// The stream is finished: an empty tensor is told of too.
  void finish() const;

 private:
  const ChunkSink& sink_;
  std::optional<TensorHeader> header_;
};

}  // namespace transparent_llm::internal
