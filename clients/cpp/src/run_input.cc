#include "run_input.h"

#include <array>
#include <cstdint>
#include <limits>
#include <string_view>

#include "transparent_llm/errors.h"

namespace transparent_llm::internal {
namespace {

/// Bytes of the UTF-8 character at the beginning of `text`; 0 if there is none.
std::size_t character_bytes(std::string_view text) {
  const auto byte = [text](std::size_t index) { return static_cast<unsigned char>(text[index]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  const std::size_t size = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < size) return 0;
  for (std::size_t index = 1; index < size; ++index) {
    if ((byte(index) & 0xc0) != 0x80) return 0;
  }
  const unsigned char second = byte(1);
  const bool is_overlong = (first == 0xe0 && second < 0xa0) || (first == 0xf0 && second < 0x90);
  const bool is_no_character = (first == 0xed && second > 0x9f) || (first == 0xf4 && second > 0x8f);
  return is_overlong || is_no_character ? 0 : size;
}

void require_utf8(std::size_t index, std::string_view sentence) {
  for (std::size_t place = 0; place < sentence.size();) {
    const std::size_t size = character_bytes(sentence.substr(place));
    if (size == 0) {
      throw InvalidRequestError(
          "sentence " + std::to_string(index) + " is not valid UTF-8 at byte " +
              std::to_string(place),
          {.reason = {}, .metadata = {{"sentence", std::to_string(index)}}, .retry_after = {}});
    }
    place += size;
  }
}

/// FNV-1a with 64 bits, of parts that cannot run into each other.
class Hash {
 public:
  void add(std::string_view part) {
    add(std::uint64_t{part.size()});
    for (const char byte : part) add_byte(static_cast<unsigned char>(byte));
  }
  void add(std::uint64_t number) {
    for (int shift = 0; shift < 64; shift += 8)
      add_byte(static_cast<unsigned char>(number >> shift));
  }
  std::string text() const {
    constexpr std::string_view kDigits = "0123456789abcdef";
    std::string text;
    for (int shift = 60; shift >= 0; shift -= 4) text += kDigits[(value_ >> shift) & 0xf];
    return text;
  }

 private:
  void add_byte(unsigned char byte) { value_ = (value_ ^ byte) * 0x100000001b3u; }
  std::uint64_t value_ = 0xcbf29ce484222325u;
};

}  // namespace

v1::RunRequest sentences_request(const std::string& model,
                                 const std::vector<std::string>& sentences) {
  v1::RunRequest request;
  request.set_model(model);
  v1::SentenceBatch& batch = *request.mutable_sentences();
  for (std::size_t index = 0; index < sentences.size(); ++index) {
    require_utf8(index, sentences[index]);
    batch.add_sentences(sentences[index]);
  }
  return request;
}

v1::RunRequest tokens_request(const std::string& model,
                              const std::vector<std::vector<Index>>& token_ids) {
  v1::RunRequest request;
  request.set_model(model);
  v1::TokenBatch& batch = *request.mutable_tokens();
  for (const std::vector<Index>& row : token_ids) {
    require_token_ids(row);
    v1::TokenSequence& sequence = *batch.add_sequences();
    for (const Index token : row) sequence.add_token_ids(static_cast<std::int32_t>(token));
  }
  return request;
}

void require_token_ids(std::span<const Index> token_ids) {
  for (const Index token : token_ids) {
    if (token >= 0 && token <= std::numeric_limits<std::int32_t>::max()) continue;
    throw InvalidRequestError(
        "token " + std::to_string(token) +
            " is not in the vocabulary: ids begin at 0 and no vocabulary is that large",
        {.reason = "UNKNOWN_TOKEN",
         .metadata = {{"token", std::to_string(token)}},
         .retry_after = {}});
  }
}

std::string run_key(const v1::RunRequest& request) {
  Hash hash;
  hash.add(request.model());
  hash.add(std::uint64_t{request.has_tokens()});
  for (const std::string& sentence : request.sentences().sentences()) hash.add(sentence);
  for (const v1::TokenSequence& row : request.tokens().sequences()) {
    hash.add(static_cast<std::uint64_t>(row.token_ids_size()));
    for (const std::int32_t token : row.token_ids()) hash.add(static_cast<std::uint64_t>(token));
  }
  return hash.text();
}

}  // namespace transparent_llm::internal
