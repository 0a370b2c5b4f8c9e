// What analyses can be told.

#pragma once

#include <optional>
#include <string>
#include <vector>

#include "transparent_llm/index.h"

namespace transparent_llm {

/// Where in a layer the residual stream is read.
enum class ResidualPoint {
  /// As it leaves the layer.
  kOut = 1,
  /// As it enters the layer.
  kIn = 2,
  /// After attention's output was added.
  kAfterAttn = 3,
};

/// What is done to a vector before it is unembedded.
enum class Normalize {
  /// The model's last step as it is.
  kOwn = 1,
  /// The final norm with the scale that it had at this position of the run, without its bias, and no
  /// soft cap: linear in the vector.
  kFrozen = 2,
  /// Nothing: the plain product with the unembedding matrix.
  kNone = 3,
};

/// How a part is compared with the whole that it is a part of.
enum class ContributionNorm {
  /// The sum of absolute differences.
  kL1 = 1,
  /// The Euclidean distance.
  kL2 = 2,
};

/// What a head is scored for.
enum class HeadScoreKind {
  /// Attention to the token after an earlier occurrence of the same token.
  kInduction = 1,
  /// Attention to the token before.
  kPrevious = 2,
  /// Attention to earlier occurrences of the same token.
  kDuplicate = 3,
  /// Attention to the first position.
  kFirst = 4,
  /// Attention to the position itself.
  kSelf = 5,
  /// Entropy of the attention of a position, in nats.
  kEntropy = 6,
};

/// The circuits of a head.
enum class HeadCircuit {
  /// What it writes of what it attends to.
  kOV = 1,
  /// What it attends to.
  kQK = 2,
};

/// What of a later head an earlier one can write to.
enum class CompositionKind {
  /// Its queries.
  kQ = 1,
  /// Its keys.
  kK = 2,
  /// Its values.
  kV = 3,
};

/// Which sparse autoencoder or transcoder, and where it is looked at.
struct SaeOptions {
  /// Its name. Empty: the only one that the model has.
  std::string sae = {};
  /// Positions of the row, negative ones from its last token. None: all.
  std::vector<Index> positions = {};
};

/// Of `Client::layer_lens`. By default statistics only, of all positions.
struct LayerLensOptions {
  /// With a layer here, the difference to the stream there is looked at.
  std::optional<Index> minus_layer = std::nullopt;
  ResidualPoint point = ResidualPoint::kOut;
  ResidualPoint minus_point = ResidualPoint::kOut;
  Normalize normalize = Normalize::kOwn;
  /// Positions of the row, negative ones from its last token. None: all.
  std::vector<Index> positions = {};
  /// How many of the tokens with the largest logits.
  Index k = 0;
  /// How many of those with the smallest.
  Index bottom_k = 0;
  /// Tokens whose logits and ranks are wanted anyway.
  std::vector<Index> token_ids = {};
  /// Whether to compare with the model's output.
  bool with_kl = false;
};

/// Of `Client::contribution_edges`.
struct EdgeOptions {
  /// What is not larger counts as nothing: of each head and source by itself, and of the residual
  /// stream.
  double threshold = 0;
  /// Divide by what is left.
  bool renormalize = false;
  ContributionNorm norm = ContributionNorm::kL1;
};

/// Of `Client::contribution_edges_to`.
struct EdgeToOptions {
  /// Positions that edges lead to, negative ones from the row's last token. None: all.
  std::vector<Index> targets = {};
  /// As in `EdgeOptions`.
  double threshold = 0;
  bool renormalize = false;
  ContributionNorm norm = ContributionNorm::kL1;
};

}  // namespace transparent_llm
