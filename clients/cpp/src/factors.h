// Values that are products. The product *is* the definition of the value: taken in single
// precision, from left to right, rounded once to the dtype of the first factor. So whoever
// multiplies gets the same bits.

#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "transparent_llm/tensor.h"

namespace transparent_llm::internal {

/// value[t, s, h] = (pattern[h, t, s] * value_out[s, h]) * gain[t]
struct AttnFactors {
  /// [head target source]; its dtype is that of the value.
  Tensor pattern;
  /// [source head d_model], F32.
  Tensor value_out;
  /// [target d_model] or a scalar, F32.
  std::optional<Tensor> gain;
};

/// value[n] = (activations[n] * output vector of n) * gain
struct FfnFactors {
  /// Of the neurons within the spans, one span after the other; its dtype is that of the value.
  Tensor activations;
  /// [d_model] or a scalar, F32.
  std::optional<Tensor> gain;
  /// [span bound], I64: start and stop of the neurons that are computed; all others are 0. Absent:
  /// all are.
  std::optional<Tensor> spans;
};

/// Called now and then during the work, which ends with what it throws.
using GoOn = std::function<void()>;

/// [target source head d_model]. Throws InternalError for factors that do not fit together,
/// TooLargeError for a value of more than `max_bytes` or than there is memory for.
Tensor product(const AttnFactors& factors, std::optional<std::uint64_t> max_bytes,
               const GoOn& go_on = {});

/// [hidden d_model], with the output vectors [d_ffn d_model] of the layer. Throws as above.
Tensor product(const FfnFactors& factors, const Tensor& weights,
               std::optional<std::uint64_t> max_bytes, const GoOn& go_on = {});

}  // namespace transparent_llm::internal
