#include "factors.h"

#include <algorithm>
#include <cfloat>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "assembler.h"
#include "half.h"
#include "sizes.h"
#include "tensor_access.h"
#include "transparent_llm/errors.h"

namespace transparent_llm::internal {
namespace {

static_assert(FLT_EVAL_METHOD == 0, "products are taken in single precision");

void require(bool fits, const char* what) {
  if (!fits)
    throw InternalError(std::string("the server sent factors that do not fit together: ") + what);
}

[[noreturn]] void raise_no_memory(const std::string& name, std::size_t n_bytes) {
  throw TooLargeError(
      name + " takes " + std::to_string(n_bytes) +
          " bytes, more than the memory available here: read a part of it (ReadOptions::slices)",
      {.reason = {}, .metadata = {{"needed", std::to_string(n_bytes)}}, .retry_after = {}});
}

/// A factor in single precision, whatever it comes in. Converted piece by piece, as all of it could
/// take twice the memory.
class Singles {
 public:
  explicit Singles(const Tensor& tensor) : tensor_(tensor) {
    require(is_floating(tensor.dtype()), "a factor is not a floating tensor");
  }

  /// Valid until the next call.
  std::span<const float> at(std::size_t first, std::size_t count) {
    if (tensor_.dtype() == Dtype::kF32) return tensor_.as<float>().subspan(first, count);
    converted_.resize(count);
    if (tensor_.dtype() == Dtype::kF64) {
      convert(tensor_.as<double>().subspan(first, count),
              [](double element) { return static_cast<float>(element); });
    } else {
      const auto halves = tensor_.as<std::uint16_t>().subspan(first, count);
      convert(halves, tensor_.dtype() == Dtype::kF16 ? from_f16 : from_bf16);
    }
    return converted_;
  }

 private:
  template <class Element, class Function>
  void convert(std::span<const Element> elements, Function from) {
    std::transform(elements.begin(), elements.end(), converted_.begin(), from);
  }

  const Tensor& tensor_;
  std::vector<float> converted_;
};

void store_as(float value, Dtype dtype, std::byte* out) {
  if (dtype == Dtype::kF64) {
    const double wide = value;
    std::memcpy(out, &wide, sizeof(wide));
    return;
  }
  const std::uint16_t half = dtype == Dtype::kF16 ? to_f16(value) : to_bf16(value);
  std::memcpy(out, &half, sizeof(half));
}

/// The value while it is made, row by row of d_model numbers, each rounded once.
class Product {
 public:
  Product(const std::string& name, Dtype dtype, std::vector<std::size_t> shape,
          std::vector<std::string> dims, std::optional<std::uint64_t> max_bytes)
      : dtype_(dtype), shape_(std::move(shape)), dims_(std::move(dims)) {
    n_bytes_ = product_of(shape_, size_of(dtype));
    require_within(name, n_bytes_, std::min(max_bytes.value_or(kAddressable), kAddressable));
    memory_ = memory_of(n_bytes_);
    if (!memory_) raise_no_memory(name, n_bytes_);
    if (n_bytes_ != 0) row_.resize(shape_.back());
  }

  /// The next row: (factor * vector) * gain. A gain of one number is one for the whole row; none is
  /// no product at all.
  void add(float factor, std::span<const float> vector, std::span<const float> gain) {
    for (std::size_t i = 0; i < vector.size(); ++i) row_[i] = factor * vector[i];
    if (gain.size() == 1 && vector.size() != 1) {
      for (float& number : row_) number *= gain[0];
    } else {
      for (std::size_t i = 0; i < gain.size() && i < vector.size(); ++i) row_[i] *= gain[i];
    }
    const std::size_t size = size_of(dtype_);
    if (dtype_ == Dtype::kF32) {
      if (!row_.empty()) std::memcpy(memory_.get() + filled_, row_.data(), row_.size() * size);
    } else {
      for (std::size_t i = 0; i < row_.size(); ++i)
        store_as(row_[i], dtype_, memory_.get() + filled_ + i * size);
    }
    filled_ += row_.size() * size;
  }

  /// The next `count` rows are zero.
  void skip(std::size_t count) {
    const std::size_t n_bytes = count * row_.size() * size_of(dtype_);
    if (n_bytes != 0) std::memset(memory_.get() + filled_, 0, n_bytes);
    filled_ += n_bytes;
  }

  /// Whether it has no elements. Its other axes may be of any length then.
  bool is_empty() const { return n_bytes_ == 0; }

  Tensor tensor() && {
    return TensorAccess::wrap(dtype_, std::move(shape_), std::move(dims_), std::move(memory_),
                              n_bytes_);
  }

 private:
  Dtype dtype_;
  std::vector<std::size_t> shape_;
  std::vector<std::string> dims_;
  std::vector<float> row_;
  std::shared_ptr<std::byte[]> memory_;
  std::size_t n_bytes_ = 0;
  std::size_t filled_ = 0;
};

std::span<const float> gain_of(const std::optional<Tensor>& gain) {
  if (!gain) return {};
  require(gain->dtype() == Dtype::kF32, "gain is not F32");
  return gain->as<float>();
}

struct Span {
  std::size_t start;
  std::size_t stop;
};

/// In the order of their activations, which need not be that of the neurons.
std::vector<Span> spans_of(const FfnFactors& factors, std::size_t n_neurons) {
  if (!factors.spans) return {{0, n_neurons}};
  const Tensor& wire = *factors.spans;
  require(wire.dtype() == Dtype::kI64 && wire.shape().size() == 2 && wire.shape()[1] == 2, "spans");
  require(wire.shape()[0] <= n_neurons, "more spans than neurons");
  const auto bounds = wire.as<std::int64_t>();
  std::vector<Span> spans;
  for (std::size_t i = 0; i < bounds.size(); i += 2) {
    const bool is_within = 0 <= bounds[i] && bounds[i] <= bounds[i + 1] &&
                           static_cast<std::uint64_t>(bounds[i + 1]) <= n_neurons;
    require(is_within, "a span outside the neurons");
    spans.push_back({static_cast<std::size_t>(bounds[i]), static_cast<std::size_t>(bounds[i + 1])});
  }
  return spans;
}

/// Which activation each neuron has; -1 for those without one.
std::vector<std::ptrdiff_t> places(const std::vector<Span>& spans, std::size_t n_neurons,
                                   std::size_t n_activations) {
  std::vector<std::ptrdiff_t> found(n_neurons, -1);
  std::ptrdiff_t place = 0;
  for (const Span& span : spans) {
    for (std::size_t neuron = span.start; neuron < span.stop; ++neuron) {
      require(found[neuron] == -1, "a neuron in two spans");
      found[neuron] = place++;
    }
  }
  require(static_cast<std::size_t>(place) == n_activations, "activations and spans");
  return found;
}

}  // namespace

Tensor product(const AttnFactors& factors, std::optional<std::uint64_t> max_bytes,
               const GoOn& go_on) {
  const auto& [pattern, value_out, gain] = factors;
  require(pattern.shape().size() == 3 && value_out.shape().size() == 3, "their axes");
  require(value_out.dtype() == Dtype::kF32, "value_out is not F32");
  const std::size_t n_heads = pattern.shape()[0], n_targets = pattern.shape()[1],
                    n_sources = pattern.shape()[2];
  const std::size_t d_model = value_out.shape()[2];
  require(value_out.shape()[0] == n_sources && value_out.shape()[1] == n_heads,
          "pattern and value_out");
  const bool has_rows = gain && !gain->shape().empty();
  require(!has_rows || gain->shape() == std::vector<std::size_t>({n_targets, d_model}), "gain");

  Product value("decomposed_attn", pattern.dtype(), {n_targets, n_sources, n_heads, d_model},
                {"target", "source", "head", "d_model"}, max_bytes);
  Singles weights(pattern);
  const std::span<const float> vectors = value_out.as<float>();
  const std::span<const float> gains = gain_of(gain);
  if (value.is_empty()) return std::move(value).tensor();
  for (std::size_t target = 0; target < n_targets; ++target) {
    const auto row_gain = has_rows ? gains.subspan(target * d_model, d_model) : gains;
    for (std::size_t source = 0; source < n_sources; ++source) {
      if (go_on) go_on();
      for (std::size_t head = 0; head < n_heads; ++head) {
        const auto vector = vectors.subspan((source * n_heads + head) * d_model, d_model);
        const std::size_t place = (head * n_targets + target) * n_sources + source;
        value.add(weights.at(place, 1)[0], vector, row_gain);
      }
    }
  }
  return std::move(value).tensor();
}

Tensor product(const FfnFactors& factors, const Tensor& weights,
               std::optional<std::uint64_t> max_bytes, const GoOn& go_on) {
  const auto& [activations, gain, spans] = factors;
  require(activations.shape().size() == 1 && weights.shape().size() == 2, "their axes");
  const std::size_t n_neurons = weights.shape()[0], d_model = weights.shape()[1];
  require(!gain || gain->shape().empty() || gain->shape() == std::vector<std::size_t>({d_model}),
          "gain");
  const auto found = places(spans_of(factors, n_neurons), n_neurons, activations.size());

  Product value("decomposed_ffn_out", activations.dtype(), {n_neurons, d_model},
                {"hidden", "d_model"}, max_bytes);
  Singles factor(activations), vectors(weights);
  const std::span<const float> gains = gain_of(gain);
  for (std::size_t neuron = 0; neuron < n_neurons; ++neuron) {
    if (go_on) go_on();
    if (found[neuron] < 0) {
      value.skip(1);
      continue;
    }
    const auto place = static_cast<std::size_t>(found[neuron]);
    value.add(factor.at(place, 1)[0], vectors.at(neuron * d_model, d_model), gains);
  }
  return std::move(value).tensor();
}

}  // namespace transparent_llm::internal
