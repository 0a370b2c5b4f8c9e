#include "json.h"

#include <stdexcept>

namespace driver {
namespace {

using namespace transparent_llm;

constexpr std::string_view kDigits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

unsigned digit(char sign) {
  const std::size_t found = kDigits.find(sign);
  if (found == std::string_view::npos) throw std::invalid_argument("not base64");
  return static_cast<unsigned>(found);
}

std::string class_of(const Error& error) {
  // Subclasses stand before their bases.
  if (dynamic_cast<const NotRunError*>(&error)) return "NotRunError";
  if (dynamic_cast<const TooLargeError*>(&error)) return "TooLargeError";
  if (dynamic_cast<const InvalidRequestError*>(&error)) return "InvalidRequestError";
  if (dynamic_cast<const IndexOutOfRangeError*>(&error)) return "IndexOutOfRangeError";
  if (dynamic_cast<const NotFoundError*>(&error)) return "NotFoundError";
  if (dynamic_cast<const CapacityError*>(&error)) return "CapacityError";
  if (dynamic_cast<const BusyError*>(&error)) return "BusyError";
  if (dynamic_cast<const NotSupportedError*>(&error)) return "NotSupportedError";
  if (dynamic_cast<const UnavailableError*>(&error)) return "UnavailableError";
  if (dynamic_cast<const DeadlineError*>(&error)) return "DeadlineError";
  if (dynamic_cast<const CancelledError*>(&error)) return "CancelledError";
  if (dynamic_cast<const AuthError*>(&error)) return "AuthError";
  if (dynamic_cast<const ModelRefusedError*>(&error)) return "ModelRefusedError";
  if (dynamic_cast<const InternalError*>(&error)) return "InternalError";
  return "TransparentLlmError";
}

}  // namespace

std::string encode_base64(std::span<const std::byte> bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t count = std::min<std::size_t>(3, bytes.size() - i);
    unsigned group = 0;
    for (std::size_t j = 0; j < 3; ++j)
      group = group << 8 | (j < count ? std::to_integer<unsigned>(bytes[i + j]) : 0u);
    for (std::size_t j = 0; j < 4; ++j)
      text += j <= count ? kDigits[group >> (18 - 6 * j) & 63u] : '=';
  }
  return text;
}

std::string decode_base64(std::string_view text) {
  if (text.size() % 4 != 0) throw std::invalid_argument("not base64: the padding is missing");
  std::string bytes;
  bytes.reserve(text.size() / 4 * 3);
  for (std::size_t i = 0; i < text.size(); i += 4) {
    const bool is_last = i + 4 == text.size();
    const std::size_t padding = !is_last || text[i + 3] != '=' ? 0 : text[i + 2] != '=' ? 1 : 2;
    unsigned group = 0;
    for (std::size_t j = 0; j < 4; ++j)
      group = group << 6 | (j < 4 - padding ? digit(text[i + j]) : 0u);
    for (std::size_t j = 0; j < 3 - padding; ++j)
      bytes += static_cast<char>(group >> (16 - 8 * j) & 255u);
  }
  return bytes;
}

Json to_json(const Tensor& tensor) {
  const std::vector<double> values = tensor.doubles();
  return {{"dtype", name_of(tensor.dtype())},
          {"shape", tensor.shape()},
          {"dims", tensor.dims()},
          {"data", encode_base64(tensor.bytes())},
          {"values", encode_base64(std::as_bytes(std::span(values)))}};
}

Tensor tensor_from(const Json& json) {
  const auto dtype = dtype_named(json.at("dtype").get<std::string>());
  if (!dtype) throw std::invalid_argument("no dtype: " + json.at("dtype").dump());
  const std::string data = decode_base64(json.at("data").get<std::string>());
  return Tensor(*dtype, json.at("shape").get<std::vector<std::size_t>>(), {},
                std::as_bytes(std::span(data)));
}

Json to_json(const Error& error) {
  return {
      {"class", class_of(error)},
      {"reason", error.reason()},
      {"message", error.what()},
      {"metadata", error.metadata()},
      {"retry_after_s", error.retry_after() ? Json(error.retry_after()->count()) : Json(nullptr)}};
}

}  // namespace driver
