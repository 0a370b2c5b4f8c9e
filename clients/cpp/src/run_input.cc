#include "run_input.h"

#include <openssl/evp.h>

#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string_view>

#include "transparent_llm/errors.h"
#include "utf8.h"

namespace transparent_llm::internal {
namespace {

using DigestContext = std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)>;

/// SHA-256 of parts, each after its length, so that two cannot run into each other.
class PartsDigest {
 public:
  PartsDigest() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    require(context_ ? EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) : 0);
  }
  void add(std::string_view part) {
    add_big_endian(std::uint64_t{part.size()});
    require(EVP_DigestUpdate(context_.get(), part.data(), part.size()));
  }
  void add(std::span<const std::int32_t> token_ids) {
    add_big_endian(std::uint64_t{token_ids.size_bytes()});
    for (const std::int32_t id : token_ids) add_big_endian(static_cast<std::uint32_t>(id));
  }
  /// The first half of the digest, in hexadecimal digits.
  std::string half() && {
    constexpr std::string_view kDigits = "0123456789abcdef";
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
    require(EVP_DigestFinal_ex(context_.get(), digest.data(), nullptr));
    std::string text;
    for (std::size_t i = 0; i < 16; ++i) {
      text += kDigits[digest[i] >> 4];
      text += kDigits[digest[i] & 0xf];
    }
    return text;
  }

 private:
  template <class Number>
  void add_big_endian(Number number) {
    std::array<unsigned char, sizeof(Number)> bytes;
    for (std::size_t i = 0; i < bytes.size(); ++i)
      bytes[i] = static_cast<unsigned char>(number >> (8 * (bytes.size() - 1 - i)));
    require(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()));
  }
  static void require(int succeeded) {
    if (succeeded != 1) throw std::runtime_error("OpenSSL has no SHA-256");
  }

  DigestContext context_;
};

}  // namespace

v1::RunRequest sentences_request(const std::string& model,
                                 const std::vector<std::string>& sentences) {
  v1::RunRequest request;
  request.set_model(model);
  v1::SentenceBatch& batch = *request.mutable_sentences();
  for (std::size_t index = 0; index < sentences.size(); ++index) {
    const std::string number = std::to_string(index);
    require_utf8("sentence " + number, sentences[index], {{"sentence", number}});
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

void require_utf8(const std::string& what, std::string_view text,
                  const std::map<std::string, std::string>& metadata) {
  for (std::size_t place = 0; place < text.size();) {
    const std::size_t size = character_bytes(text.substr(place));
    if (size == 0) {
      throw InvalidRequestError(what + " is not valid UTF-8 at byte " + std::to_string(place),
                                {.reason = {}, .metadata = metadata, .retry_after = {}});
    }
    place += size;
  }
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
  PartsDigest digest;
  digest.add(request.model());
  if (request.has_tokens()) {
    digest.add("tokens");
    for (const v1::TokenSequence& row : request.tokens().sequences())
      digest.add({row.token_ids().data(), static_cast<std::size_t>(row.token_ids_size())});
  } else {
    digest.add("sentences");
    for (const std::string& sentence : request.sentences().sentences()) digest.add(sentence);
  }
  return std::move(digest).half();
}

}  // namespace transparent_llm::internal
