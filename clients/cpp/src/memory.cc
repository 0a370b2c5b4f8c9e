#include "memory.h"

#include <algorithm>
#include <fstream>
#include <limits>

#if __has_include(<unistd.h>)
#include <unistd.h>
#endif

namespace transparent_llm::internal {
namespace {

constexpr std::uint64_t kUnknown = std::numeric_limits<std::uint64_t>::max();
constexpr std::uint64_t kHalfOfUnknown = std::uint64_t{4} << 30;

std::uint64_t of_machine() {
#ifdef _SC_PHYS_PAGES
  const long pages = sysconf(_SC_PHYS_PAGES), bytes = sysconf(_SC_PAGESIZE);
  if (pages > 0 && bytes > 0)
    return static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(bytes);
#endif
  return kUnknown;
}

/// What Linux lets a container take, by a file of one of its two versions.
std::uint64_t limit_in(const char* path) {
  std::ifstream file(path);
  std::uint64_t limit = kUnknown;
  return file >> limit ? limit : kUnknown;
}

}  // namespace

std::uint64_t half_of_memory() {
  static const std::uint64_t kHalf = [] {
    const std::uint64_t total =
        std::min({of_machine(), limit_in("/sys/fs/cgroup/memory.max"),
                  limit_in("/sys/fs/cgroup/memory/memory.limit_in_bytes")});
    return total == kUnknown || total == 0 ? kHalfOfUnknown : total / 2;
  }();
  return kHalf;
}

}  // namespace transparent_llm::internal
