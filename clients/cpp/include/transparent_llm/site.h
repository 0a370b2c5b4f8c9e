// Places of a model where its run can be changed, or differentiated by.

#pragma once

#include <initializer_list>
#include <memory>
#include <span>

#include "transparent_llm/index.h"

namespace transparent_llm {

namespace internal {
struct SiteParts;
}  // namespace internal

/// A tensor of one layer, on the way from tokens to logits. Negative layers count from the end.
/// Throws IndexOutOfRangeError for a number that does not fit into 32 bits.
class Site {
 public:
  /// The residual stream as it enters a block [pos d_model]; that of layer 0 is the embedding.
  static Site residual_in(Index layer);
  /// Between attention and feed-forward part [pos d_model]. Blocks that compute both side by side
  /// have none.
  static Site residual_after_attn(Index layer);
  /// As it leaves a block [pos d_model]: the same tensor as `residual_in` of the next.
  static Site residual_out(Index layer);
  /// What attention adds to the stream [pos d_model], with bias, norm after it and multiplier.
  static Site attn_out(Index layer);
  /// What the feed-forward part adds to the stream [pos d_model], with bias, norm and multiplier.
  static Site ffn_out(Index layer);
  /// What a query head has mixed of the values [pos d_head], before its output weights.
  static Site head(Index layer, Index head);
  /// Attention probabilities of a query head after the softmax [query_pos key_pos]. Positions of an
  /// edit are queries. What a query may not see stays 0; rows need not sum to 1 afterwards.
  static Site pattern(Index layer, Index head);
  /// The query of a query head as keys are multiplied with it [pos d_head]: after rotary embeddings,
  /// norms and factors.
  static Site query(Index layer, Index head);
  /// A key as queries are multiplied with it [pos d_head]; the head is one of those that query heads
  /// share.
  static Site key(Index layer, Index head);
  /// A value, which patterns mix [pos d_head]; the head is one of those that query heads share.
  static Site value(Index layer, Index head);
  /// All heads of a layer as one tensor, one after the other [pos n_heads * d_head].
  static Site all_heads(Index layer);
  /// Patterns of all query heads of a layer as one tensor [query_pos n_heads * key_pos].
  static Site all_patterns(Index layer);
  /// Queries of all query heads of a layer as one tensor [pos n_heads * d_head].
  static Site all_queries(Index layer);
  /// All keys of a layer as one tensor [pos n_kv_heads * d_head].
  static Site all_keys(Index layer);
  /// All values of a layer as one tensor [pos n_kv_heads * d_head].
  static Site all_values(Index layer);
  /// Activations of neurons right after the activation function [pos neuron]. Throws
  /// InvalidRequestError if none is named.
  static Site neurons(Index layer, std::span<const Index> neurons);
  static Site neurons(Index layer, std::initializer_list<Index> neurons);
  /// Those of all neurons of a layer.
  static Site all_neurons(Index layer);

  const internal::SiteParts& parts() const { return *parts_; }

 private:
  explicit Site(internal::SiteParts parts);
  std::shared_ptr<const internal::SiteParts> parts_;
};

}  // namespace transparent_llm
