#include "assembler.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "legible.h"
#include "sizes.h"
#include "wire_dtype.h"

namespace transparent_llm::internal {
namespace {

/// More bytes than any name of a tensor or an axis has, and than any etag.
constexpr std::size_t kMostName = 128, kMostEtag = 256;

std::string text_of(const v1::TensorHeader& wire) {
  std::string text = v1::Dtype_Name(wire.dtype()) + " [";
  for (const auto length : wire.shape()) text += std::to_string(length) + " ";
  text += "] [";
  for (const auto& name : wire.dims()) text += in_quotes(name) + " ";
  return text + "] in " + std::to_string(wire.total_bytes()) + " bytes";
}

bool has_short_names(const v1::TensorHeader& wire) {
  const auto is_short = [](const std::string& name) { return name.size() <= kMostName; };
  return is_short(wire.name()) && wire.etag().size() <= kMostEtag &&
         std::all_of(wire.dims().begin(), wire.dims().end(), is_short);
}

}  // namespace

TensorHeader checked(const v1::TensorHeader& wire) {
  const auto dtype = from_wire(wire.dtype());
  if (!dtype) throw StreamError("unknown dtype " + std::to_string(wire.dtype()) + " in the header");
  if (static_cast<std::size_t>(wire.shape_size()) > kMostAxes ||
      wire.dims_size() != wire.shape_size()) {
    throw StreamError("the header names " + std::to_string(wire.dims_size()) + " axes of " +
                      std::to_string(wire.shape_size()));
  }
  if (!has_short_names(wire))
    throw StreamError("the header of " + in_quotes(wire.name()) + " has names longer than any");
  const auto needed = bytes_of(
      std::span<const std::uint64_t>(wire.shape().data(), wire.shape_size()), size_of(*dtype));
  if (needed != wire.total_bytes())
    throw StreamError("header contradicts itself: " + text_of(wire));
  return {.name = wire.name(),
          .dtype = *dtype,
          .shape = {wire.shape().begin(), wire.shape().end()},
          .dims = {wire.dims().begin(), wire.dims().end()},
          .total_bytes = wire.total_bytes()};
}

namespace {

bool same(const TensorHeader& one, const TensorHeader& other) {
  return one.name == other.name && one.dtype == other.dtype && one.shape == other.shape &&
         one.dims == other.dims;
}

}  // namespace

void Assembler::add(const v1::TensorChunk& chunk) {
  if (chunk.has_header()) begin(chunk.header(), chunk.offset());
  if (!chunk.has_header() && (goes_on_ || held_.empty())) {
    throw StreamError("the stream began without a header");
  }
  if (chunk.has_shared()) throw StreamError("data in shared memory that was not offered");
  goes_on_ = false;
  Held& current = held_.back();
  const std::uint64_t size = chunk.data().size();
  if (chunk.offset() != current.received || size > current.header.total_bytes - current.received) {
    throw StreamError("chunk of " + std::to_string(size) + " bytes at " +
                      std::to_string(chunk.offset()) + " after byte " +
                      std::to_string(current.received) + " of " +
                      std::to_string(current.header.total_bytes));
  }
  if (size != 0) sink_.take(chunk.offset(), std::as_bytes(std::span(chunk.data())));
  current.received += size;
  received_ += size;
}

void Assembler::resume() {
  while (!held_.empty() && held_.back().received == 0) {
    total_bytes_ -= held_.back().header.total_bytes;
    held_.pop_back();
    sink_.drop_last();
  }
  goes_on_ = true;
}

void Assembler::finish() const {
  if (!is_complete() || held_.empty()) {
    throw StreamError("the stream ended at byte " + std::to_string(received_) + " of " +
                      std::to_string(total_bytes_));
  }
}

void Assembler::begin(const v1::TensorHeader& wire, std::uint64_t offset) {
  TensorHeader header = checked(wire);
  if (wire.etag() == etag_) {
    if (goes_on_ && offset != 0 && !held_.empty()) {
      if (same(header, held_.back().header)) return;
      throw StreamError("a header with the etag of the broken stream describes another tensor");
    }
    if (!is_complete()) {
      throw StreamError(in_quotes(header.name) + " begins at byte " + std::to_string(received_) +
                        " of " + std::to_string(total_bytes_));
    }
  } else if (etag_ && !goes_on_) {
    throw StreamError("the etag changed within a stream");
  }
  if (check_) check_(header);
  const std::uint64_t before = wire.etag() == etag_ ? of_same_value(header) : 0;
  require_within(header.name, before + header.total_bytes, max_bytes_);
  if (wire.etag() != etag_)
    start_over(wire.etag());  // the first header, or the same bits could not be promised
  if (header.total_bytes > std::numeric_limits<std::uint64_t>::max() - total_bytes_) {
    throw StreamError("more bytes were announced than can be counted");
  }
  sink_.begin(header);
  total_bytes_ += header.total_bytes;
  held_.push_back({std::move(header), 0});
}

std::uint64_t Assembler::of_same_value(const TensorHeader& header) const {
  std::uint64_t sum = 0;
  const TensorHeader* after = &header;
  for (auto held = held_.rbegin(); held != held_.rend(); ++held) {
    if (!continues_ || !continues_(held->header, *after)) break;
    after = &held->header;
    sum += after->total_bytes;
  }
  return sum;
}

void Assembler::start_over(const std::string& etag) {
  if (!held_.empty()) sink_.clear();
  held_.clear();
  etag_ = etag;
  received_ = total_bytes_ = 0;
}

void require_within(const std::string& name, std::uint64_t n_bytes,
                    std::optional<std::uint64_t> max_bytes) {
  if (!max_bytes || n_bytes <= *max_bytes) return;
  throw TooLargeError(
      legible(name, kMostName) + " takes " + std::to_string(n_bytes) +
          " bytes, but this client accepts at most max_bytes=" + std::to_string(*max_bytes) +
          ": read a part of it (ReadOptions::slices), in a smaller dtype, by read_chunks, or raise "
          "max_bytes",
      {.reason = {},
       .metadata = {{"needed", std::to_string(n_bytes)}, {"allowed", std::to_string(*max_bytes)}},
       .retry_after = {}});
}

}  // namespace transparent_llm::internal
