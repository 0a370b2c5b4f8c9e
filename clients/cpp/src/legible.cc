#include "legible.h"

#include <algorithm>

#include "utf8.h"

namespace transparent_llm::internal {
namespace {

constexpr std::size_t kMostEntries = 32, kMostKey = 64, kMostValue = 1024, kMostReason = 64;
constexpr std::string_view kReplacement = "\xef\xbf\xbd";

/// The number of a character.
char32_t number_of(std::string_view character) {
  if (character.size() == 1) return static_cast<unsigned char>(character[0]);
  char32_t number = static_cast<unsigned char>(character[0]) & (0x7f >> character.size());
  for (const char byte : character.substr(1)) number = number << 6 | (byte & 0x3f);
  return number;
}

/// Whether a terminal does something else than show it: controls, and what turns the direction of
/// writing.
bool is_obeyed(char32_t sign) {
  if (sign == '\n' || sign == '\t') return false;
  return sign < 0x20 || (sign >= 0x7f && sign < 0xa0) || sign == 0x61c || sign == 0x200e ||
         sign == 0x200f || (sign >= 0x202a && sign <= 0x202e) ||
         (sign >= 0x2066 && sign <= 0x2069);
}

}  // namespace

std::string legible(std::string_view text, std::size_t most) {
  std::string made;
  for (std::size_t count = 0; !text.empty(); ++count) {
    if (count == most) return made + "...";
    const std::size_t size = character_bytes(text);
    const std::string_view character = text.substr(0, size == 0 ? 1 : size);
    made += size == 0 || is_obeyed(number_of(character)) ? kReplacement : character;
    text.remove_prefix(character.size());
  }
  return made;
}

std::string in_quotes(std::string_view text) { return '"' + legible(text, 100) + '"'; }

std::map<std::string, std::string> legible(const std::map<std::string, std::string>& metadata) {
  std::map<std::string, std::string> made;
  for (const auto& [key, value] : metadata) {
    if (made.size() == kMostEntries) break;
    if (key.size() <= kMostKey) made[legible(key, kMostKey)] = legible(value, kMostValue);
  }
  return made;
}

bool is_reason(std::string_view text) {
  const auto fits = [](char sign) {
    return (sign >= 'A' && sign <= 'Z') || (sign >= '0' && sign <= '9') || sign == '_';
  };
  return !text.empty() && text.size() <= kMostReason && std::all_of(text.begin(), text.end(), fits);
}

}  // namespace transparent_llm::internal
