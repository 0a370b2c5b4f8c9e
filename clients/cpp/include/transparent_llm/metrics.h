// Numbers of rows, by which one says what a change of a run does.

#pragma once

#include <memory>
#include <vector>

#include "transparent_llm/edits.h"
#include "transparent_llm/index.h"

namespace transparent_llm {

namespace internal {
struct MetricParts;
}  // namespace internal

/// A number of each row's output: `Metric::logit({king}).minus({queen})` is the difference of two
/// logits at the last token. Throws InvalidRequestError for what makes no sense, TooLargeError for
/// more than 4096 tokens.
class Metric {
 public:
  /// The logit of a token: one for all rows, or one for each.
  static Metric logit(const std::vector<Index>& tokens);
  /// Its log-probability, natural.
  static Metric logprob(const std::vector<Index>& tokens);
  /// Its probability.
  static Metric prob(const std::vector<Index>& tokens);
  /// The mean of -log p(next token) over the tokens of a row that another one follows, in nats.
  static Metric loss();
  /// KL(changed || unchanged) of the next token's distribution, in nats.
  static Metric kl();
  /// The same with the current run of `other`, of as many rows, each as long. Throws NotRunError if
  /// it has none.
  static Metric kl(const Client& other);
  /// Of the next token's distribution, in nats.
  static Metric entropy();
  /// The product of the residual stream at a site and a direction, whose length is made 1.
  static Metric projection(const Site& site, const Vector& direction);

  /// The same number of these tokens less: one for all rows, or one for each.
  Metric minus(const std::vector<Index>& tokens) const;
  /// At another position of each row than its last; negative ones count from there. A loss has none.
  Metric at(Index pos) const;

  const internal::MetricParts& parts() const { return *parts_; }

 private:
  explicit Metric(internal::MetricParts parts);
  std::shared_ptr<const internal::MetricParts> parts_;
};

}  // namespace transparent_llm
