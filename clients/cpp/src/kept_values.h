// Values of current runs that were read already. Shared by a client and its copies; safe for many
// threads.

#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "current_run.h"
#include "transparent_llm/client.h"

namespace transparent_llm::internal {

class KeptValues {
 public:
  explicit KeptValues(std::uint64_t max_bytes) : max_bytes_(max_bytes) {}

  /// Whether anything is kept at all.
  bool keeps() const { return max_bytes_ > 0; }
  /// The value of a run that was asked for in these words, if it is kept.
  std::optional<Parts> find(const CurrentRun& run, const std::string& asked);
  /// Keeps it, unless it takes more than a quarter of all; those that were read longest ago go.
  void keep(const CurrentRun& run, const std::string& asked, const Parts& value);
  /// Forgets the values of runs that nobody has any more.
  void forget_unowned();

 private:
  using Key = std::pair<const char*, std::string>;
  struct Kept {
    Key key;
    std::weak_ptr<const char> life;
    Parts value;
    std::uint64_t n_bytes = 0;
  };
  using Place = std::list<Kept>::iterator;

  Place forget(Place kept);

  const std::uint64_t max_bytes_;
  std::mutex mutex_;
  std::list<Kept> kept_;  // the last read first
  std::map<Key, Place> places_;
  std::uint64_t n_bytes_ = 0;
};

}  // namespace transparent_llm::internal
