// Values, errors and bytes as the driver protocol writes them.

#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>

#include "transparent_llm/client.h"

namespace driver {

using Json = nlohmann::json;

std::string encode_base64(std::span<const std::byte> bytes);
/// Throws std::invalid_argument for anything else than base64 with its padding.
std::string decode_base64(std::string_view text);

/// {"dtype", "shape", "dims", "data", "values"}
Json to_json(const transparent_llm::Tensor& tensor);
transparent_llm::Tensor tensor_from(const Json& json);
/// {"class", "reason", "message", "metadata", "retry_after_s"}
Json to_json(const transparent_llm::Error& error);

}  // namespace driver
