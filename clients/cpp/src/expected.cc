#include "expected.h"

#include <algorithm>
#include <optional>

#include "legible.h"
#include "slices.h"
#include "transparent_llm/errors.h"

namespace transparent_llm::internal {
namespace {

constexpr std::size_t kMostFactors = 3;  // of each product

struct Factor {
  std::string_view name;
  std::vector<std::string_view> dims;
};

/// A gain may be a scalar too.
const std::vector<Factor>& factors() {
  static const std::vector<Factor> kFactors = {
      {"decomposed_attn.pattern", {"head", "target", "source"}},
      {"decomposed_attn.value_out", {"source", "head", "d_model"}},
      {"decomposed_attn.gain", {"target", "d_model"}},
      {"decomposed_ffn_out.activations", {"d_ffn"}},
      {"decomposed_ffn_out.gain", {"d_model"}},
      {"decomposed_ffn_out.spans", {"span", "bound"}},
  };
  return kFactors;
}

[[noreturn]] void refuse(const std::string& what) {
  throw InternalError("the server sent " + what);
}

std::string joined(std::span<const std::string_view> dims) {
  std::string text;
  for (const std::string_view name : dims) text += (text.empty() ? "" : " ") + std::string(name);
  return text;
}

void require_dims(const TensorHeader& header, std::span<const std::string_view> dims) {
  if (std::equal(header.dims.begin(), header.dims.end(), dims.begin(), dims.end())) return;
  const std::vector<std::string_view> sent(header.dims.begin(), header.dims.end());
  refuse(header.name + " with the axes " + in_quotes(joined(sent)) + ", not " + joined(dims));
}

void require_dtype(const TensorHeader& header, std::string_view factor,
                   const Expectation& expectation) {
  std::optional<Dtype> wanted;
  if (factor == "spans" || expectation.method == "tokens") {
    wanted = Dtype::kI64;
  } else if (!factor.empty() && factor != first_factor(expectation.method)) {
    wanted = Dtype::kF32;
  } else if (factor.empty()) {
    wanted = expectation.options.dtype;
  }
  if (wanted ? header.dtype == *wanted : is_floating(header.dtype)) return;
  refuse(header.name + " as " + std::string(name_of(header.dtype)) + ", not as " +
         (wanted ? std::string(name_of(*wanted)) : "a floating type"));
}

void require_lengths(const TensorHeader& header, const Expectation& expectation) {
  for (std::size_t axis = 0; axis < header.dims.size(); ++axis) {
    const auto whole = expectation.lengths.find(header.dims[axis]);
    if (whole == expectation.lengths.end()) continue;
    const auto slice = expectation.options.slices.find(header.dims[axis]);
    const std::uint64_t length = slice == expectation.options.slices.end()
                                     ? whole->second
                                     : count_of(slice->second, whole->second);
    if (header.shape[axis] != length) {
      refuse(header.name + " with " + std::to_string(header.shape[axis]) + " along " +
             header.dims[axis] + ", not " + std::to_string(length));
    }
  }
}

}  // namespace

void add_lengths(Lengths& lengths, const CurrentRun& run) {
  lengths["batch"] = run.tokens.shape()[0];
  for (const char* axis : {"pos", "query_pos", "key_pos", "target", "source"})
    lengths[axis] = run.tokens.shape()[1];
}

Expected::Expected(const std::vector<Expectation>& expectations) {
  for (const Expectation& one : expectations) {
    most_ += one.factored ? kMostFactors : 1;
    Expectation& known = by_method_.try_emplace(one.method, one).first->second;
    known.factored = known.factored || one.factored;
  }
}

void Expected::check(const TensorHeader& header) const {
  const std::string_view name = header.name;
  const std::size_t dot = std::min(name.find('.'), name.size());
  const bool is_factor = dot != name.size();
  const auto found = by_method_.find(name.substr(0, dot));
  if (found == by_method_.end() || (is_factor && !found->second.factored))
    refuse(in_quotes(name) + ", which was not asked for");
  const Expectation& expectation = found->second;
  if (!is_factor) {
    require_dims(header, expectation.dims);
    require_dtype(header, "", expectation);
    return require_lengths(header, expectation);
  }
  const auto factor = std::find_if(factors().begin(), factors().end(),
                                   [name](const Factor& one) { return one.name == name; });
  if (factor == factors().end()) refuse(in_quotes(name) + ", which is not a factor");
  const std::string_view after_dot = name.substr(dot + 1);
  const bool is_scalar = after_dot == "gain" && header.dims.empty();
  if (!is_scalar) require_dims(header, factor->dims);
  require_dtype(header, after_dot, expectation);
  require_lengths(header, expectation);
}

std::string_view first_factor(std::string_view method) {
  if (method == "decomposed_attn") return "pattern";
  if (method == "decomposed_ffn_out") return "activations";
  return {};
}

}  // namespace transparent_llm::internal
