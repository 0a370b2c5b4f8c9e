#include "sinks.h"

#include <cstring>
#include <utility>

#include "legible.h"
#include "tensor_access.h"

namespace transparent_llm::internal {

void Collector::begin(const TensorHeader& header) {
  if (arriving_.size() == most_)
    throw StreamError(in_quotes(header.name) + " begins after the " + std::to_string(most_) +
                      " tensors that were asked for");
  std::shared_ptr<std::byte[]> memory = memory_of(header.total_bytes);
  if (!memory)
    throw StreamError("no memory for the " + std::to_string(header.total_bytes) +
                      " bytes that were announced");
  arriving_.push_back({header, std::move(memory)});
}

void Collector::take(std::uint64_t offset, std::span<const std::byte> data) {
  std::memcpy(arriving_.back().memory.get() + offset, data.data(), data.size());
}

std::vector<NamedTensor> Collector::tensors() && {
  std::vector<NamedTensor> finished;
  finished.reserve(arriving_.size());
  for (Arriving& held : arriving_) {
    TensorHeader& header = held.header;
    finished.push_back(
        {header.name,
         TensorAccess::wrap(header.dtype, std::move(header.shape), std::move(header.dims),
                            std::move(held.memory), header.total_bytes)});
  }
  arriving_.clear();
  return finished;
}

void Forwarder::begin(const TensorHeader& header) {
  if (header_)
    throw StreamError("a second tensor, " + in_quotes(header.name) + ", in a stream of one");
  header_ = header;
}

void Forwarder::finish() const {
  if (header_ && header_->total_bytes == 0) sink_(*header_, 0, {});
}

}  // namespace transparent_llm::internal
