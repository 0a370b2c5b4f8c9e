#include "retries.h"

#include <algorithm>
#include <chrono>
#include <random>

namespace transparent_llm::internal {
namespace {

using namespace std::chrono_literals;
using Clock = Deadline::Clock;

constexpr int kTriesUnreached =
    5;  // of a call to a server that has never answered: it is not waited for
constexpr Clock::duration kFirstPause = 50ms;
constexpr Clock::duration kLongestPause = 1s;

/// Whether it is that of a server that goes or comes, or cancels what it has not begun: where one
/// was reached before, it or another one will answer.
bool is_passing(const Failure& failure) {
  const std::string& reason = failure.details.reason;
  return reason == "UNAVAILABLE" || reason == "DRAINING" || reason == "LOADING" ||
         reason == "CANCELLED";
}

/// Whether the call began to load the model that it is for, or found it loading; not: whether the
/// server starts.
bool loads_a_model(const Failure& failure) {
  return failure.details.reason == "LOADING" && failure.details.metadata.contains("model");
}

/// Whether it is that of a server that has no room for the call now.
bool is_busy(const Failure& failure) { return failure.details.reason == "BUSY"; }

/// Any part of a time.
Clock::duration part_of(Clock::duration time) {
  thread_local std::minstd_rand random(std::random_device{}());
  return Clock::duration(std::uniform_int_distribution<Clock::rep>(0, time.count())(random));
}

Clock::duration pause_after(int in_a_row) {
  return std::min(kFirstPause * (1 << std::min(in_a_row, 10)), kLongestPause);
}

}  // namespace

void Retries::backoff(const Failure& failure, const Transfer& transfer, bool progress) {
  require_wanted(failure);
  if (loads_a_model(failure) || is_busy(failure)) return wait_as_told(failure);
  const auto now = Clock::now();
  if (progress || !since_) {
    in_a_row_ = 0;
    since_ = now;
  }
  if (!progress) ++in_a_row_;
  if (failure.kind == ErrorClass::kDeadline && loss_) raise_stayed_away(transfer);
  const bool was_reached = was_reached_ || transfer.has_begun;
  const bool is_unreached = !was_reached && failure.details.reason == "UNAVAILABLE";
  if (is_unreached && in_a_row_ < kTriesUnreached && !terms_.deadline.is_within(0s)) return;
  const bool was_lost = was_reached && is_passing(failure);
  const bool was_broken = (transfer.has_begun || loss_) && (failure.kind == ErrorClass::kUnavailable ||
                                                         failure.kind == ErrorClass::kCancelled);
  if (!(was_lost || was_broken) || now - *since_ >= connection_.options().reconnect) failure.raise();
  if (!loss_) loss_ = failure;
  const auto pause = in_a_row_ == 0 ? rest(now) : pause_after(in_a_row_);
  if (terms_.deadline.is_within(pause)) raise_stayed_away(transfer);
  this->pause(pause, failure);
}

/// The pause after some progress: none, unless the failure before was only just, as of a server that
/// sends crumbs.
Clock::duration Retries::rest(Clock::time_point now) {
  const auto none = Clock::duration::zero();
  const auto pause = last_ ? std::max(none, *last_ + kFirstPause - now) : none;
  last_ = now + pause;
  return pause;
}

void Retries::require_wanted(const Failure& failure) const {
  if (!connection_.is_given_up(terms_)) return;
  throw CancelledError("the call was cancelled",
                       {.reason = {}, .metadata = failure.details.metadata, .retry_after = {}});
}

void Retries::pause(Clock::duration time, const Failure& failure) const {
  connection_.pause(time, terms_);
  require_wanted(failure);
}

void Retries::raise_stayed_away(const Transfer& transfer) const {
  const std::string received = std::to_string(transfer.received);
  const std::string total = std::to_string(transfer.total_bytes);
  const std::string place =
      transfer.total_bytes != 0 ? " at byte " + received + " of " + total : "";
  throw DeadlineError(connection_.peer() + " was lost" + place +
                          " and did not come back within the call's time: " + loss_->message,
                      {.reason = {},
                       .metadata = {{"received", received}, {"total_bytes", total}},
                       .retry_after = {}});
}

/// As long as the server says; throws its own words if the call's time does not suffice. For room up
/// to as long again, so that those whom it sent away do not come back together.
void Retries::wait_as_told(const Failure& failure) const {
  const Seconds asked = failure.details.retry_after.value_or(Seconds(0));
  auto pause = asked > Seconds(0)
                   ? std::chrono::duration_cast<Clock::duration>(std::min(asked, Seconds(3600)))
                   : kLongestPause;
  if (is_busy(failure)) pause += part_of(pause);
  if (terms_.deadline.is_within(pause)) failure.raise();
  this->pause(pause, failure);
}

}  // namespace transparent_llm::internal
