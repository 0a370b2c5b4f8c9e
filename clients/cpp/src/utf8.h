// Characters of a text that may be none.

#pragma once

#include <cstddef>
#include <string_view>

namespace transparent_llm::internal {

/// Bytes of the UTF-8 character at the beginning of `text`, which is not empty; 0 if there is none.
std::size_t character_bytes(std::string_view text);

}  // namespace transparent_llm::internal
