// Reads: what can be asked of a run.

#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace transparent_llm {

/// An index, from 0. Wider than the wire's 32 bits, so that a number which does not fit is an error
/// and not another one.
using Index = std::int64_t;

/// One value of a run: a method of `Client` with its arguments, for `Client::fetch` and
/// `Client::read_chunks`.
class Read {
 public:
  static Read tokens() { return {"tokens", {}}; }
  static Read logits() { return {"logits", {}}; }
  static Read residual_in(Index layer) { return {"residual_in", {layer}}; }
  static Read residual_after_attn(Index layer) { return {"residual_after_attn", {layer}}; }
  static Read residual_out(Index layer) { return {"residual_out", {layer}}; }
  static Read ffn_out(Index layer) { return {"ffn_out", {layer}}; }
  static Read decomposed_ffn_out(Index batch_i, Index layer, Index pos) {
    return {"decomposed_ffn_out", {batch_i, layer, pos}};
  }
  static Read neuron_activations(Index batch_i, Index layer, Index pos) {
    return {"neuron_activations", {batch_i, layer, pos}};
  }
  static Read attention_matrix(Index batch_i, Index layer, Index head) {
    return {"attention_matrix", {batch_i, layer, head}};
  }
  static Read attention_output(Index batch_i, Index layer, Index pos,
                               std::optional<Index> head = std::nullopt) {
    return {"attention_output", {batch_i, layer, pos, head}};
  }
  static Read decomposed_attn(Index batch_i, Index layer) {
    return {"decomposed_attn", {batch_i, layer}};
  }

  /// The read of a method that is known by name only, for example {"residual_in", {3}}.
  ///
  /// Throws InvalidRequestError for a name that is no method above, or another number of arguments;
  /// a head may be left out.
  static Read named(std::string_view method, std::vector<std::optional<Index>> indices);

  /// The method's name, for example "residual_in".
  std::string_view method() const noexcept { return method_; }
  /// The method's arguments, in their order. Only a head may be absent.
  const std::vector<std::optional<Index>>& indices() const noexcept { return indices_; }

 private:
  Read(std::string_view method, std::vector<std::optional<Index>> indices)
      : method_(method), indices_(std::move(indices)) {}

  std::string_view method_;  // of a literal, or of the table
  std::vector<std::optional<Index>> indices_;
};

}  // namespace transparent_llm
