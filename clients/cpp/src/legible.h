// The words of a server, within bounds: more would be there to fill memories and terminals.

#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>

namespace transparent_llm::internal {

/// Characters of a message.
inline constexpr std::size_t kMostMessage = 4096;

/// A text as it can be printed: so many characters at most, and none that a terminal obeys.
std::string legible(std::string_view text, std::size_t most);
/// In quotation marks, in a message.
std::string in_quotes(std::string_view text);
/// Entries of a server's, within bounds.
std::map<std::string, std::string> legible(const std::map<std::string, std::string>& metadata);
/// Whether a text is a constant as those of errors.proto.
bool is_reason(std::string_view text);

}  // namespace transparent_llm::internal
