// Checks the messages of one stream of tensors, of several calls if it broke, and hands their
// data on.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "transparent_llm/client.h"
#include "transparent_llm/v1/tensor.pb.h"

namespace transparent_llm::internal {

/// A stream that does not follow tensor.proto: the peer is broken or speaks another protocol.
class StreamError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A header, which may come from anyone, checked against itself: nothing is computed of what is more
/// than any header has. Throws StreamError for one that contradicts itself.
TensorHeader checked(const v1::TensorHeader& wire);

/// Where the data of a stream go.
class StreamSink {
 public:
  virtual ~StreamSink() = default;
  /// A further tensor begins. Throws StreamError if it cannot be taken.
  virtual void begin(const TensorHeader& header) = 0;
  /// Data of the last tensor, at least one byte, within its `total_bytes` and without gaps.
  virtual void take(std::uint64_t offset, std::span<const std::byte> data) = 0;
  /// The last tensor, of which no byte has come, will begin again.
  virtual void drop_last() = 0;
  /// Everything will begin again.
  virtual void clear() = 0;
};

class Assembler {
 public:
  /// Throws for the header of a tensor that was not asked for.
  using Check = std::function<void(const TensorHeader&)>;
  /// Whether a tensor is of one value with the one before it.
  using Continues = std::function<bool(const TensorHeader& before, const TensorHeader& header)>;

  /// `max_bytes` is the most that one value may take: one tensor, or those that continue one
  /// another. `check`, if there is one, sees each header before memory is taken for its tensor.
  Assembler(StreamSink& sink, std::optional<std::uint64_t> max_bytes, Check check = {},
            Continues continues = {})
      : sink_(sink),
        max_bytes_(max_bytes),
        check_(std::move(check)),
        continues_(std::move(continues)) {}

  /// Takes the next message. Throws StreamError for no header yet, a gap, more data than announced,
  /// or a header that contradicts itself or the broken stream; TooLargeError for a value of more
  /// than `max_bytes`; what `check` throws.
  void add(const v1::TensorChunk& chunk);
  /// The stream broke and is asked for from `received()` on. What has no bytes yet will be sent
  /// again.
  void resume();
  /// Throws StreamError if there is no tensor, or the last one is not finished.
  void finish() const;

  /// Data bytes of the whole stream so far.
  std::uint64_t received() const { return received_; }
  /// Bytes of all tensors whose header has come.
  std::uint64_t total_bytes() const { return total_bytes_; }
  /// Of the stream so far; empty before its first header.
  std::string etag() const { return etag_.value_or(""); }
  /// Whether a header has come.
  bool has_begun() const { return etag_.has_value(); }

 private:
  struct Held {
    TensorHeader header;
    std::uint64_t received = 0;
  };

  void begin(const v1::TensorHeader& wire, std::uint64_t offset);
  void start_over(const std::string& etag);
  /// Bytes of the tensors before this one that are one value together with it.
  std::uint64_t of_same_value(const TensorHeader& header) const;
  bool is_complete() const { return has_begun() && received_ == total_bytes_; }

  StreamSink& sink_;
  std::optional<std::uint64_t> max_bytes_;
  Check check_;
  Continues continues_;
  std::optional<std::string> etag_;
  std::vector<Held> held_;
  std::uint64_t received_ = 0;
  std::uint64_t total_bytes_ = 0;
  bool goes_on_ = false;  // the next header can be that of a tensor which broke off
};

/// Throws TooLargeError if a value takes more bytes than its reader has room for.
void require_within(const std::string& name, std::uint64_t n_bytes,
                    std::optional<std::uint64_t> max_bytes);

}  // namespace transparent_llm::internal
