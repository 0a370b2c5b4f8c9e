// Reads as calls: the table says how each maps to the wire.

#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "calls.h"
#include "transparent_llm/options.h"
#include "transparent_llm/read.h"
#include "transparent_llm/v1/service.pb.h"

namespace transparent_llm::internal {

/// How the value of a read is asked for.
struct Asked {
  Read read;
  /// Whether its factors will do.
  bool factored = false;
};

/// A read in words that are the same for equal ones.
std::string words_of(const Read& read, const ReadOptions& options);

/// The call that brings one value of a run. Throws IndexOutOfRangeError for an index that is no
/// int32.
StreamCall call_of(const std::string& run_id, const Asked& asked, const ReadOptions& options);
/// The call that brings many, in their order. Throws as `call_of`.
StreamCall fetch_call(const std::string& run_id, std::span<const Asked> asked,
                      const ReadOptions& options);

/// What a fetch of them would bring. Throws as `call_of`.
v1::PlanRequest plan_request(const std::string& run_id, std::span<const Asked> asked,
                             const ReadOptions& options);

/// An index as it travels. Throws IndexOutOfRangeError if it is no int32.
std::int32_t to_int32(const char* axis, Index index);

}  // namespace transparent_llm::internal
