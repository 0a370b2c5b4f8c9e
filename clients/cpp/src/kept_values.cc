#include "kept_values.h"

namespace transparent_llm::internal {
namespace {

/// What an entry takes besides its numbers, about.
constexpr std::uint64_t kEntryBytes = 128;

std::uint64_t bytes_of(const std::string& asked, const Parts& value) {
  std::uint64_t sum = asked.size() + kEntryBytes;
  for (const auto& [name, tensor] : value) sum += tensor.bytes().size();
  return sum;
}

}  // namespace

std::optional<Parts> KeptValues::find(const CurrentRun& run, const std::string& asked) {
  const std::lock_guard lock(mutex_);
  const auto found = places_.find({run.life.get(), asked});
  if (found == places_.end() || found->second->life.lock() != run.life) return std::nullopt;
  kept_.splice(kept_.begin(), kept_, found->second);
  return found->second->value;
}

void KeptValues::keep(const CurrentRun& run, const std::string& asked, const Parts& value) {
  const std::uint64_t n_bytes = bytes_of(asked, value);
  if (n_bytes > max_bytes_ / 4) return;
  const std::lock_guard lock(mutex_);
  Key key{run.life.get(), asked};
  if (const auto found = places_.find(key); found != places_.end()) forget(found->second);
  kept_.push_front({.key = key, .life = run.life, .value = value, .n_bytes = n_bytes});
  places_.emplace(std::move(key), kept_.begin());
  n_bytes_ += n_bytes;
  while (n_bytes_ > max_bytes_) forget(std::prev(kept_.end()));
}

void KeptValues::forget_unowned() {
  const std::lock_guard lock(mutex_);
  for (Place kept = kept_.begin(); kept != kept_.end();)
    kept = kept->life.expired() ? forget(kept) : std::next(kept);
}

KeptValues::Place KeptValues::forget(Place kept) {
  n_bytes_ -= kept->n_bytes;
  places_.erase(kept->key);
  return kept_.erase(kept);
}

}  // namespace transparent_llm::internal
