// What analyses answer: tensors by name, of F32 where nothing else is said.

#pragma once

#include <optional>

#include "transparent_llm/tensor.h"

namespace transparent_llm {

struct LayerLens {
  /// I64 [pos rank]
  Tensor top_ids;
  /// [pos rank]
  Tensor top_logits;
  /// I64 [pos bottom_rank]
  Tensor bottom_ids;
  /// [pos bottom_rank]
  Tensor bottom_logits;
  /// [pos token]
  Tensor target_logits;
  /// Places in the sorted vocabulary, 0 for the largest logit: I64 [pos token]
  Tensor target_ranks;
  /// A logit less this is a log-probability: [pos]
  Tensor logsumexp;
  /// In nats: [pos]
  Tensor entropy;
  /// KL(model's output || lens) in nats, if it was asked for: [pos]
  std::optional<Tensor> kl;
};

struct TokenLogprobs {
  /// NaN where no token follows: [pos]
  Tensor logprobs;
  /// 0 is the most likely, -1 where no token follows: I64 [pos]
  Tensor ranks;
};

struct AttnContributions {
  /// [target source head]
  Tensor heads;
  /// What was there before: [target]
  Tensor residual;
};

struct ContributionEdges {
  /// [target source]
  Tensor attention;
  /// [target]
  Tensor attention_residual;
  /// [pos]; of edges into some positions [target], as the next one.
  Tensor ffn;
  /// [pos]
  Tensor ffn_residual;
};

struct NeuronContributions {
  /// I64 [rank]
  Tensor ids;
  /// [rank]
  Tensor values;
  /// What was there before the neurons: a scalar.
  Tensor residual;
};

/// Scalars, and `layers`.
struct LogitTerms {
  /// The sum of all terms, before any soft cap.
  Tensor logit;
  Tensor embedding;
  /// [layer]
  Tensor layers;
  Tensor norm_bias;
  Tensor unembed_bias;
  /// The divisor of the final norm, which is no term.
  Tensor scale;
};

/// Scalars, and `heads`.
struct LogitAttribution {
  /// [head]
  Tensor heads;
  Tensor attn_bias;
  Tensor ffn;
  /// A part of `ffn`.
  Tensor ffn_bias;
};

/// What a sparse autoencoder finds. A padded position has NaN, and -1 for features and counts.
struct SaeFeatures {
  /// The most active features, in falling order; -1 where fewer are active: I64 [pos rank]
  Tensor ids;
  /// Theirs; 0 where fewer are active: [pos rank]
  Tensor activations;
  /// How many features are active: I64 [pos]
  Tensor active;
  /// Length of what the features do not account for: [pos]
  Tensor error_norm;
  /// Share of variance explained: [pos]
  Tensor explained;
};

/// The weights of one head, as the model has them: `v` times `o` is its OV circuit, `q` times the
/// transposed `k` its QK circuit. Gains of norms are not folded in, biases are not part of them, and
/// rotary embeddings and norms of queries and keys are as if they were not there.
struct HeadWeights {
  /// [d_model d_head]
  Tensor q;
  /// [d_model d_head]
  Tensor k;
  /// [d_model d_head]
  Tensor v;
  /// [d_head d_model]
  Tensor o;
};

struct NeuronAttribution {
  /// I64 [rank]
  Tensor ids;
  /// [rank]
  Tensor values;
  /// The sum of all others: a scalar.
  Tensor rest;
};

}  // namespace transparent_llm
