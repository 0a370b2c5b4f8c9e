// Messages for tests, in few words.

#pragma once

#include <grpcpp/support/status.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "transparent_llm/v1/service.pb.h"

namespace transparent_llm::test {

/// A header, perhaps with data. `total_bytes` is what dtype and shape need unless it is given.
struct HeaderFields {
  std::string name = "residual_in";
  v1::Dtype dtype = v1::DTYPE_U8;
  std::vector<std::uint64_t> shape = {};
  std::vector<std::string> dims = {};
  std::uint64_t total_bytes = 0;
  std::string etag = "e";
};

v1::TensorChunk header(const HeaderFields& fields, const std::string& data = "",
                       std::uint64_t offset = 0);
v1::TensorChunk chunk(std::uint64_t offset, const std::string& data);
/// What a value of this name has as its axes; "axis" for each of another one.
std::vector<std::string> dims_of(const std::string& name, std::size_t n_axes);
/// A residual of one row of two positions in F16, of so many bytes: a multiple of four.
v1::TensorChunk residual(std::uint64_t n_bytes, const std::string& data = "",
                         const std::string& etag = "e");
/// That of a model of this name.
std::string digest_of(const std::string& model);
/// A vector [n] of bytes.
v1::TensorChunk bytes_header(std::uint64_t n, const std::string& data = "",
                             const std::string& etag = "e");

/// A whole tensor of floats in one message.
v1::TensorChunk floats(const std::string& name, const std::vector<std::uint64_t>& shape,
                       const std::vector<float>& values, const std::string& etag = "e");

/// A status with details, as the server sends it.
grpc::Status status_of(grpc::StatusCode code, const std::string& reason,
                       const std::map<std::string, std::string>& metadata = {},
                       std::optional<std::int32_t> retry_after_ms = std::nullopt);

/// The answer to a Run of one row of two tokens.
v1::RunResponse run_response(const std::string& run_id, const std::string& model);

}  // namespace transparent_llm::test
