#include "methods.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>
#include <vector>

#include "slices.h"
#include "transparent_llm/errors.h"

namespace transparent_llm::internal {
namespace {

/// The indices of a read, into the fields of its request: they stand in the same order in every
/// method.
template <class Request>
void set_indices(Request& request, const Read& read) {
  auto next = read.indices().begin();
  const auto set = [&next](const char* axis, auto setter) {
    const std::optional<Index>& index = *next++;
    if (index) setter(to_int32(axis, *index));
  };
  if constexpr (requires { request.set_batch_i(0); })
    set("batch_i", [&](std::int32_t i) { request.set_batch_i(i); });
  if constexpr (requires { request.set_layer(0); })
    set("layer", [&](std::int32_t i) { request.set_layer(i); });
  if constexpr (requires { request.set_pos(0); })
    set("pos", [&](std::int32_t i) { request.set_pos(i); });
  if constexpr (requires { request.set_head(0); })
    set("head", [&](std::int32_t i) { request.set_head(i); });
}

using Dims = std::span<const std::string_view>;

template <class Request>
void fill_request(Request& request, const Asked& asked, Dims dims, const ReadOptions& options) {
  set_indices(request, asked.read);
  fill(*request.mutable_options(), dims, options, asked.read.method() != "tokens");
  if (asked.factored) request.mutable_options()->set_encoding(v1::ENCODING_FACTORED);
}

struct Row {
  std::string_view name;
  std::vector<std::string_view> dims;
  StreamCall (*call)(const std::string& run_id, const Asked&, Dims, const ReadOptions&);
  void (*add)(v1::FetchItem&, const Asked&, Dims, const ReadOptions&);
};

template <class Request>
using ItemMember = Request* (v1::FetchItem::*)();

template <auto kItem, class Request>
Row row_of(std::string_view name, std::vector<std::string_view> dims, ItemMember<Request>) {
  return {name, std::move(dims),
          [](const std::string& run_id, const Asked& asked, Dims axes, const ReadOptions& options) {
            Request request;
            request.set_run_id(run_id);
            fill_request(request, asked, axes, options);
            return stream_call(std::string(asked.read.method()), std::move(request));
          },
          [](v1::FetchItem& item, const Asked& asked, Dims axes, const ReadOptions& options) {
            fill_request(*(item.*kItem)(), asked, axes, options);
          }};
}

template <auto kItem>
Row row(std::string_view name, std::vector<std::string_view> dims) {
  return row_of<kItem>(name, std::move(dims), kItem);
}

const std::vector<Row>& rows() {
  using Item = v1::FetchItem;
  static const std::vector<Row> kRows = {
      row<&Item::mutable_tokens>("tokens", {"batch", "pos"}),
      row<&Item::mutable_logits>("logits", {"batch", "pos", "d_vocab"}),
      row<&Item::mutable_residual_in>("residual_in", {"batch", "pos", "d_model"}),
      row<&Item::mutable_residual_after_attn>("residual_after_attn", {"batch", "pos", "d_model"}),
      row<&Item::mutable_residual_out>("residual_out", {"batch", "pos", "d_model"}),
      row<&Item::mutable_ffn_out>("ffn_out", {"batch", "pos", "d_model"}),
      row<&Item::mutable_decomposed_ffn_out>("decomposed_ffn_out", {"hidden", "d_model"}),
      row<&Item::mutable_neuron_activations>("neuron_activations", {"d_ffn"}),
      row<&Item::mutable_attention_matrix>("attention_matrix", {"query_pos", "key_pos"}),
      row<&Item::mutable_attention_output>("attention_output", {"d_model"}),
      row<&Item::mutable_decomposed_attn>("decomposed_attn",
                                          {"target", "source", "head", "d_model"}),
  };
  return kRows;
}

const Row& row_for(const Read& read) {
  return *std::find_if(rows().begin(), rows().end(),
                       [&](const Row& row) { return row.name == read.method(); });
}

}  // namespace

std::int32_t to_int32(const char* axis, Index index) {
  if (index >= std::numeric_limits<std::int32_t>::min() &&
      index <= std::numeric_limits<std::int32_t>::max()) {
    return static_cast<std::int32_t>(index);
  }
  throw IndexOutOfRangeError(
      std::string(axis) + " " + std::to_string(index) + " is out of range: no axis is that long",
      {.reason = {},
       .metadata = {{"axis", axis}, {"got", std::to_string(index)}},
       .retry_after = {}});
}

std::span<const std::string_view> dims_of(const Read& read) { return row_for(read).dims; }

StreamCall call_of(const std::string& run_id, const Asked& asked, const ReadOptions& options) {
  const Row& row = row_for(asked.read);
  return row.call(run_id, asked, row.dims, options);
}

StreamCall fetch_call(const std::string& run_id, std::span<const Asked> asked,
                      const ReadOptions& options) {
  v1::FetchRequest request;
  request.set_run_id(run_id);
  for (const Asked& one : asked) {
    const Row& row = row_for(one.read);
    row.add(*request.add_items(), one, row.dims, options);
  }
  return stream_call("fetch", std::move(request));
}

}  // namespace transparent_llm::internal
