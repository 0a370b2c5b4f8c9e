// How often, and how long already, a call had to be made or taken up again without any progress.

#pragma once

#include <optional>

#include "connection.h"
#include "failure.h"

namespace transparent_llm::internal {

/// How far a transfer is; all zero for a call without one.
struct Transfer {
  bool has_begun = false;
  std::uint64_t received = 0;
  std::uint64_t total_bytes = 0;
};

class Retries {
 public:
  Retries(const Connection& connection, const CallTerms& terms)
      : connection_(connection), terms_(terms), was_reached_(connection.has_answered()) {}

  /// Waits a little after a failure, so that the call can be made again; throws what cannot be mended,
  /// or could not within `Options::reconnect`. `progress`: whether anything came since the last one.
  void backoff(const Failure& failure, const Transfer& transfer = {}, bool progress = false);

 private:
  using Clock = Deadline::Clock;

  Clock::duration rest(Clock::time_point now);
  void require_wanted(const Failure& failure) const;
  void pause(Clock::duration time, const Failure& failure) const;
  [[noreturn]] void raise_stayed_away(const Transfer& transfer) const;
  void wait_as_told(const Failure& failure) const;

  const Connection& connection_;
  const CallTerms& terms_;
  const bool was_reached_;
  int in_a_row_ = 0;
  std::optional<Clock::time_point> since_;
  std::optional<Clock::time_point> last_;
  std::optional<Failure> loss_;
};

}  // namespace transparent_llm::internal
