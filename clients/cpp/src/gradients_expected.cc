#include "gradients_expected.h"

#include <algorithm>
#include <utility>

#include "edit_parts.h"
#include "legible.h"
#include "row_length.h"
#include "transparent_llm/errors.h"

namespace transparent_llm::internal {
namespace {

using Dims = std::vector<std::string>;

/// Where the name of a site is cut as that of a tensor.
constexpr std::size_t kMostName = 128;

Dims axes_of(v1::SiteKind kind) {
  switch (kind) {
    case v1::SITE_KIND_HEAD:
    case v1::SITE_KIND_QUERY:
      return {"batch", "pos", "head", "d_head"};
    case v1::SITE_KIND_KEY:
    case v1::SITE_KIND_VALUE:
      return {"batch", "pos", "kv_head", "d_head"};
    case v1::SITE_KIND_PATTERN:
      return {"batch", "head", "query_pos", "key_pos"};
    case v1::SITE_KIND_NEURONS:
      return {"batch", "pos", "neuron"};
    default:
      return {"batch", "pos", "d_model"};
  }
}

Dims dims_of(const v1::Site& site, v1::GradientForm form) {
  Dims dims = axes_of(site.kind());
  if (site.has_head())
    std::erase_if(dims, [](const std::string& axis) { return axis == "head" || axis == "kv_head"; });
  const bool is_of_numbers =
      site.kind() == v1::SITE_KIND_NEURONS || site.kind() == v1::SITE_KIND_PATTERN;
  if (form != v1::GRADIENT_FORM_GRADIENT && !is_of_numbers) dims.pop_back();
  return dims;
}

/// Of the longest of some rows; none if that is not known.
std::optional<std::uint64_t> longest_of(const CurrentRun& run,
                                        const google::protobuf::RepeatedField<std::int32_t>& rows) {
  std::optional<std::uint64_t> longest;
  const auto batch = static_cast<std::int64_t>(run.tokens.shape()[0]);
  if (!run.mask) return longest;
  for (std::int64_t row : rows) {
    row += row < 0 ? batch : 0;
    if (row < 0 || row >= batch) continue;
    const std::uint64_t length = row_length(*run.mask, static_cast<std::size_t>(row));
    longest = std::max(longest.value_or(0), length);
  }
  return longest == 0 ? std::nullopt : longest;
}

/// Of some rows, which are padded to the longest of them; of no rows those of all.
Sizes sizes_of(const v1::GradientsRequest& request, const CurrentRun& run,
               const std::optional<ModelDescription>& model) {
  const auto& rows = request.rows();
  Sizes sizes{{"batch", rows.empty() ? run.tokens.shape()[0]
                                     : static_cast<std::uint64_t>(rows.size())}};
  const std::uint64_t n_pos = longest_of(run, rows).value_or(run.tokens.shape()[1]);
  for (const char* axis : {"pos", "query_pos", "key_pos"}) sizes[axis] = n_pos;
  if (model) {
    sizes["head"] = model->info.n_heads;
    sizes["d_model"] = model->info.d_model;
    sizes["layer"] = model->info.n_layers;
    sizes["sender"] = 1 + std::uint64_t{model->info.n_layers} * (model->info.n_heads + 1);
  }
  return sizes;
}

/// These and that of the neurons of a site.
Sizes sizes_at(const v1::Site& site, const std::optional<ModelDescription>& model, Sizes sizes) {
  if (site.kind() != v1::SITE_KIND_NEURONS) return sizes;
  if (site.neurons_size() > 0) {
    sizes["neuron"] = static_cast<std::uint64_t>(site.neurons_size());
  } else if (model) {
    const auto n_layers = static_cast<std::int64_t>(model->d_ffn.size());
    const std::int64_t layer = site.layer() + (site.layer() < 0 ? n_layers : 0);
    if (layer >= 0 && layer < n_layers && model->d_ffn[static_cast<std::size_t>(layer)] > 0)
      sizes["neuron"] = model->d_ffn[static_cast<std::size_t>(layer)];
  }
  return sizes;
}

std::string joined(const Dims& dims) {
  std::string text;
  for (const std::string& axis : dims) text += (text.empty() ? "" : " ") + axis;
  return text;
}

[[noreturn]] void refuse(const std::string& name, const std::string& what) {
  throw InternalError("the server sent " + in_quotes(name) + " " + what);
}

}  // namespace

ExpectedGradients::ExpectedGradients(const v1::GradientsRequest& request, const CurrentRun& run,
                                     const std::optional<ModelDescription>& model) {
  const Sizes sizes = sizes_of(request, run, model);
  expected_.push_back({"metric", {"batch"}, Dtype::kF64, sizes});
  if (request.has_path()) {
    for (const char* name : {"baseline_metric", "delta"})
      expected_.push_back({name, {"batch"}, Dtype::kF64, sizes});
    expected_.push_back({"integrated_gradients",
                         dims_of(request.path().site(), v1::GRADIENT_FORM_GRADIENT), Dtype::kF32,
                         sizes});
  }
  if (request.has_edges()) {
    const std::pair<const char*, Dims> tensors[] = {
        {"query", {"batch", "sender", "layer", "head"}},
        {"key", {"batch", "sender", "layer", "kv_head"}},
        {"value", {"batch", "sender", "layer", "kv_head"}},
        {"ffn", {"batch", "sender", "layer"}},
        {"logits", {"batch", "sender"}}};
    for (const auto& [name, dims] : tensors)
      expected_.push_back({name, dims, Dtype::kF32, sizes});
  }
  for (const v1::GradientSite& asked : request.sites()) {
    expected_.push_back({name_of(asked.site()).substr(0, kMostName),
                         dims_of(asked.site(), asked.form()), Dtype::kF32,
                         sizes_at(asked.site(), model, sizes)});
  }
}

void ExpectedGradients::require(const One& wanted, const std::string& name, Dtype dtype,
                                const Dims& dims, const std::vector<std::size_t>& shape) {
  if (dtype != wanted.dtype || dims != wanted.dims || shape.size() != dims.size()) {
    refuse(name, "as " + std::string(name_of(dtype)) + " with the axes " + in_quotes(joined(dims)) +
                     ", not as " + std::string(name_of(wanted.dtype)) + " with " +
                     joined(wanted.dims));
  }
  for (std::size_t axis = 0; axis < dims.size(); ++axis) {
    const auto known = wanted.sizes.find(dims[axis]);
    if (known != wanted.sizes.end() && shape[axis] != known->second) {
      refuse(name, "with " + std::to_string(shape[axis]) + " along " + dims[axis] + ", not " +
                       std::to_string(known->second));
    }
  }
}

void ExpectedGradients::check(const TensorHeader& header) const {
  std::string refused;
  for (const One& one : expected_) {  // sites whose names were cut may have the same one
    if (one.name != header.name) continue;
    try {
      return require(one, header.name, header.dtype, header.dims, header.shape);
    } catch (const InternalError& error) {
      refused = error.what();
    }
  }
  if (!refused.empty()) throw InternalError(refused);
  refuse(header.name, "which was not asked for");
}

std::vector<Tensor> ExpectedGradients::whole(std::vector<NamedTensor> came) const {
  if (came.size() != expected_.size()) {
    throw InternalError("the server sent " + std::to_string(came.size()) + " tensors, not the " +
                        std::to_string(expected_.size()) + " that were asked for");
  }
  std::vector<Tensor> tensors;
  for (std::size_t i = 0; i < came.size(); ++i) {
    auto& [name, tensor] = came[i];
    if (name != expected_[i].name) refuse(name, "in the place of " + in_quotes(expected_[i].name));
    require(expected_[i], name, tensor.dtype(), tensor.dims(), tensor.shape());
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

}  // namespace transparent_llm::internal
