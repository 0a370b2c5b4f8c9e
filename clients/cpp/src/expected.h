// What is known of the tensors of a stream before they come, so that whatever else a server sends
// is refused by its header.

#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "current_run.h"
#include "method_table.h"
#include "transparent_llm/client.h"
#include "transparent_llm/options.h"

namespace transparent_llm::internal {

/// Of whole axes, by their names; those that are not known are not there.
using Lengths = std::map<std::string, std::uint64_t, std::less<>>;

/// Adds those that are as long as the run.
void add_lengths(Lengths& lengths, const CurrentRun& run);

/// Of axes whose length parameters of a read say.
using Sizes = std::map<std::string, std::uint64_t, std::less<>>;

/// What is known of one value.
struct Expectation {
  /// A row of the table.
  const Method* method = nullptr;
  ReadOptions options = {};
  Lengths lengths = {};
  /// Whether its factors will do.
  bool factored = false;
  /// Vectors that it was asked of at once, which have an axis "n" before the others; 0: one, without.
  std::size_t rows = 0;
  /// Of each read of the stream that asks for it.
  std::vector<Sizes> sizes = {};
};

/// Adds those of a read; of whole axes what is known of them.
void add_sizes(Expectation& expectation, const Read& read);
/// Throws InternalError for a tensor that is as long as another read of the same method says.
void require_own_sizes(const Expectation& expectation, const Parts& came);
void require_own_sizes(const Expectation& expectation,
                       const std::map<std::string, TensorHeader>& headers);

/// Of all tensors of a stream.
class ExpectedTensors {
 public:
  ExpectedTensors() = default;
  ExpectedTensors(const ExpectedTensors&) = default;
  ExpectedTensors(ExpectedTensors&&) = default;
  ExpectedTensors& operator=(const ExpectedTensors&) = default;
  ExpectedTensors& operator=(ExpectedTensors&&) = default;
  virtual ~ExpectedTensors() = default;

  /// How many there can be.
  virtual std::size_t most() const = 0;
  /// Throws InternalError for a tensor that was not asked for, or that has other axes, another
  /// length or another type than it must.
  virtual void check(const TensorHeader& header) const = 0;
  /// Whether a tensor is a further part of the value that the one before is of.
  virtual bool continues(const TensorHeader& before, const TensorHeader& header) const = 0;
};

/// Of all values of a stream.
class Expected final : public ExpectedTensors {
 public:
  explicit Expected(const std::vector<Expectation>& expectations);

  std::size_t most() const override { return most_; }
  void check(const TensorHeader& header) const override;
  bool continues(const TensorHeader& before, const TensorHeader& header) const override;

 private:
  std::map<std::string, Expectation, std::less<>> by_method_;
  std::size_t most_ = 0;
};

}  // namespace transparent_llm::internal
