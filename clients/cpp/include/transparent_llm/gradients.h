// Gradients of one number of each row of a run, next to the weights: nothing of it is stored.
//
//   const auto metric = Metric::logit({king}).minus({queen});
//   llm.gradients(metric, {SiteGradient::times_activation(Site::all_heads(2))});
//   llm.integrated_gradients(metric, GradientPath::from_zero(50));
//   llm.edge_attribution(metric, corrupt).top(0, 10);

#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "transparent_llm/edits.h"
#include "transparent_llm/index.h"
#include "transparent_llm/metrics.h"
#include "transparent_llm/site.h"
#include "transparent_llm/tensor.h"

namespace transparent_llm {

namespace internal {
struct GradientParts;
struct PathParts;
}  // namespace internal

/// What is a constant of the backward pass. With all four a gradient is the direct effect on the
/// output, by the residual stream alone.
enum class FrozenPart {
  /// Attention patterns.
  kPatterns = 1,
  /// What norms divide by.
  kNormScales = 2,
  /// Queries, keys and values.
  kAttention = 3,
  /// Activations of neurons.
  kNeurons = 4,
};

/// What is told of the gradient g of a metric by the tensor a at a site.
class SiteGradient {
 public:
  /// g itself: of the stream and of branches [batch pos d_model], of all heads [batch pos head
  /// d_head], of keys and values kv_head, of one head [batch pos d_head], of neurons [batch pos
  /// neuron], of patterns [batch head query_pos key_pos].
  static SiteGradient by(const Site& site);
  /// a times g, summed over the last axis; not over neurons, nor over sources of a pattern, which are
  /// numbers of their own.
  static SiteGradient times_activation(const Site& site);
  /// (a of the current run of `source` - a) times g, summed in the same way: what the metric gains, to
  /// first order, if the other run's value is put here (attribution patching). `rows` are those of
  /// the other run, one for each row that is differentiated, of as many tokens; none: the same.
  /// Throws NotRunError if it has none.
  static SiteGradient times_difference(const Site& site, const Client& source,
                                       const std::vector<Index>& rows = {});
  /// The length of g along the last axis; the absolute value of a number of its own.
  static SiteGradient norm(const Site& site);

  const internal::GradientParts& parts() const { return *parts_; }

 private:
  explicit SiteGradient(internal::GradientParts parts);
  std::shared_ptr<const internal::GradientParts> parts_;
};

/// The straight way from a baseline to what the run has at a site, after the edits there. Its steps
/// are the nodes of the Gauss-Legendre rule, 1 to 1000; 50 are usual. Throws InvalidRequestError for
/// others.
class GradientPath {
 public:
  /// From zeros.
  static GradientPath from_zero(Index steps);
  /// From what the model has there, without edits, where a token stands at all positions.
  static GradientPath from_token(Index token, Index steps);
  /// From what the current run of `other` has there, of as many rows, each of as many tokens. Throws
  /// NotRunError if it has none.
  static GradientPath from_run(const Client& other, Index steps);

  /// At another site than the embedding: the stream as it enters or leaves a block, a branch, or
  /// heads. Throws InvalidRequestError for any other.
  GradientPath at(const Site& site) const;

  const internal::PathParts& parts() const { return *parts_; }

 private:
  explicit GradientPath(internal::PathParts parts);
  std::shared_ptr<const internal::PathParts> parts_;
};

/// Of `Client::gradients` and `Client::integrated_gradients`.
struct GradientOptions {
  /// Of the run. None: all.
  std::vector<Index> rows = {};
  /// Each at most once.
  std::vector<FrozenPart> frozen = {};
  /// The run is differentiated as it is with these, whose rows and positions are those of the whole
  /// run. The gradient goes through what they do; what they set is a constant. What stands at a
  /// site, and the gradient by it, are those after the edits there.
  std::vector<Edit> edits = {};
  /// As `ReadOptions::on_progress`.
  std::function<void(std::uint64_t received_bytes, std::uint64_t total_bytes)> on_progress = {};
  /// In place of `Options::timeout`.
  std::optional<std::chrono::milliseconds> timeout = std::nullopt;
  /// Cancels the call: it then throws CancelledError at once, and the server is told.
  std::stop_token stop_token = {};
};

/// The answer of `Client::gradients`.
struct Gradients {
  /// F64 [batch]
  Tensor metric;
  /// F32, in the order in which they were asked for; 0 where there is padding.
  std::vector<Tensor> sites;
};

/// The answer of `Client::integrated_gradients`.
struct IntegratedGradients {
  /// F64 [batch]
  Tensor metric;
  /// F64 [batch]
  Tensor baseline_metric;
  /// F64 [batch]: the sum of the gradients less the difference of the metrics. 0 were the rule exact.
  Tensor delta;
  /// F32: (x - baseline) times the mean gradient, with the axes that `SiteGradient::by` has of the
  /// site.
  Tensor values;
};

/// Of `Client::edge_attribution`.
struct EdgeAttributionOptions {
  /// 0: gradients of this run (EAP); up to 1000: the mean of those at so many nodes on the straight
  /// way from the embedding of this run to that of the other (EAP-IG).
  Index steps = 0;
  /// Of the run. None: all.
  std::vector<Index> rows = {};
  /// Of the other run, one for each row, of as many tokens. None: the same.
  std::vector<Index> source_rows = {};
  /// Each at most once.
  std::vector<FrozenPart> frozen = {};
  /// As in `GradientOptions`.
  std::function<void(std::uint64_t received_bytes, std::uint64_t total_bytes)> on_progress = {};
  std::optional<std::chrono::milliseconds> timeout = std::nullopt;
  std::stop_token stop_token = {};
};

/// An edge between two parts of a model. Senders are "residual_in(0)", "head(1, 2)" and "ffn_out(1)";
/// receivers "query(1, 2)", "key(1, 2)", "value(1, 2)", "ffn(1)" and "logits".
struct ScoredEdge {
  std::string sender;
  std::string receiver;
  double score = 0;

  bool operator==(const ScoredEdge&) const = default;
};

/// The answer of `Client::edge_attribution`. Senders are the embedding, then, layer by layer, each
/// head and the feed-forward part; a score is 0 where a sender does not come before a receiver.
struct EdgeAttribution {
  /// F64 [batch]
  Tensor metric;
  /// F32 [batch sender layer head]
  Tensor query;
  /// F32 [batch sender layer kv_head]
  Tensor key;
  /// F32 [batch sender layer kv_head]
  Tensor value;
  /// F32 [batch sender layer]
  Tensor ffn;
  /// F32 [batch sender]
  Tensor logits;

  /// The edges of a row with the largest scores, of whichever sign, the largest first: at most so
  /// many. Throws IndexOutOfRangeError for a row that is not there, InvalidRequestError for none.
  std::vector<ScoredEdge> top(std::size_t row, std::size_t count) const;
};

}  // namespace transparent_llm
