#include "wire.h"

#include <string_view>

#include "transparent_llm/client/status.pb.h"

namespace transparent_llm::test {

v1::TensorChunk header(const HeaderFields& fields, const std::string& data, std::uint64_t offset) {
  v1::TensorChunk message = chunk(offset, data);
  v1::TensorHeader& head = *message.mutable_header();
  head.set_name(fields.name);
  head.set_dtype(fields.dtype);
  for (const std::uint64_t length : fields.shape) head.add_shape(length);
  for (const std::string& name : fields.dims) head.add_dims(name);
  head.set_total_bytes(fields.total_bytes);
  head.set_etag(fields.etag);
  return message;
}

v1::TensorChunk chunk(std::uint64_t offset, const std::string& data) {
  v1::TensorChunk message;
  message.set_offset(offset);
  message.set_data(data);
  return message;
}

v1::TensorChunk bytes_header(std::uint64_t n, const std::string& data, const std::string& etag) {
  return header({.shape = {n}, .dims = {"pos"}, .total_bytes = n, .etag = etag}, data);
}

v1::TensorChunk residual(std::uint64_t n_bytes, const std::string& data, const std::string& etag) {
  return header({.dtype = v1::DTYPE_F16,
                 .shape = {1, 2, n_bytes / 4},
                 .dims = dims_of("residual_in", 3),
                 .total_bytes = n_bytes,
                 .etag = etag},
                data);
}

std::vector<std::string> dims_of(const std::string& name, std::size_t n_axes) {
  static const std::map<std::string, std::vector<std::string>> kDims = {
      {"residual_in", {"batch", "pos", "d_model"}},
      {"neuron_output", {"d_model"}},
      {"neuron_outputs", {"d_ffn", "d_model"}},
      {"decomposed_ffn_out", {"hidden", "d_model"}},
      {"decomposed_ffn_out.activations", {"d_ffn"}},
      {"decomposed_ffn_out.gain", {"d_model"}},
      {"decomposed_ffn_out.spans", {"span", "bound"}},
  };
  const auto found = kDims.find(name);
  return found == kDims.end() ? std::vector<std::string>(n_axes, "axis") : found->second;
}

std::string digest_of(const std::string& model) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string digest;
  for (const unsigned char byte : model) {
    digest += kDigits[byte >> 4];
    digest += kDigits[byte & 0xf];
  }
  digest.resize(64, '0');
  return digest;
}

v1::TensorChunk floats(const std::string& name, const std::vector<std::uint64_t>& shape,
                       const std::vector<float>& values, const std::string& etag) {
  const std::string data(reinterpret_cast<const char*>(values.data()),
                         values.size() * sizeof(float));
  return header({.name = name,
                 .dtype = v1::DTYPE_F32,
                 .shape = shape,
                 .dims = dims_of(name, shape.size()),
                 .total_bytes = data.size(),
                 .etag = etag},
                data);
}

grpc::Status status_of(grpc::StatusCode code, const std::string& reason,
                       const std::map<std::string, std::string>& metadata,
                       std::optional<std::int32_t> retry_after_ms) {
  client::Status status;
  status.set_code(code);
  status.set_message("the server's words");
  client::ErrorInfo info;
  info.set_reason(reason);
  info.set_domain("transparent-llm");
  info.mutable_metadata()->insert(metadata.begin(), metadata.end());
  client::Detail& detail = *status.add_details();
  detail.set_type_url("type.googleapis.com/google.rpc.ErrorInfo");
  detail.set_value(info.SerializeAsString());
  if (retry_after_ms) {
    client::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(*retry_after_ms / 1000);
    retry.mutable_retry_delay()->set_nanos(*retry_after_ms % 1000 * 1'000'000);
    client::Detail& second = *status.add_details();
    second.set_type_url("type.googleapis.com/google.rpc.RetryInfo");
    second.set_value(retry.SerializeAsString());
  }
  return {code, "the plain words", status.SerializeAsString()};
}

v1::RunResponse run_response(const std::string& run_id, const std::string& model) {
  v1::RunResponse response;
  response.set_run_id(run_id);
  response.set_batch_size(1);
  response.set_n_pos(2);
  response.add_token_ids(5);
  response.add_token_ids(6);
  response.set_model_digest(digest_of(model));
  return response;
}

}  // namespace transparent_llm::test
