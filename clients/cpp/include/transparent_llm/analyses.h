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
  /// [pos]
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

struct NeuronAttribution {
  /// I64 [rank]
  Tensor ids;
  /// [rank]
  Tensor values;
  /// The sum of all others: a scalar.
  Tensor rest;
};

}  // namespace transparent_llm
