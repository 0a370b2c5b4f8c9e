// The time that a call as a whole may take.

#pragma once

#include <algorithm>
#include <chrono>

namespace transparent_llm::internal {

class Deadline {
 public:
  using Clock = std::chrono::steady_clock;

  static Deadline after(std::chrono::milliseconds time) {
    constexpr std::chrono::milliseconds kLongest =
        std::chrono::hours(24 * 365);  // what comes after cannot overflow
    return Deadline(Clock::now() + std::clamp(time, std::chrono::milliseconds(0), kLongest));
  }

  Clock::duration remaining() const { return at_ - Clock::now(); }
  /// Whether it will be over after so long.
  bool is_within(Clock::duration pause) const { return remaining() <= pause; }
  /// For gRPC, which counts by the wall clock.
  std::chrono::system_clock::time_point on_wall_clock() const {
    return std::chrono::system_clock::now() +
           std::chrono::duration_cast<std::chrono::system_clock::duration>(remaining());
  }

 private:
  explicit Deadline(Clock::time_point at) : at_(at) {}
  Clock::time_point at_;
};

}  // namespace transparent_llm::internal
