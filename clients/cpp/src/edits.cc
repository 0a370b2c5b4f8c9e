#include "transparent_llm/edits.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <utility>

#include "edit_parts.h"
#include "methods.h"
#include "transparent_llm/client.h"
#include "transparent_llm/errors.h"
#include "wire_dtype.h"

namespace transparent_llm {

using internal::EditParts;
using internal::Sources;
using internal::VectorParts;

namespace {

/// Differences within differences that a server takes.
constexpr int kDeepest = 8;

std::string number(double value) {
  return std::isnan(value) ? "nan" : std::isinf(value) ? (value < 0 ? "-inf" : "inf")
                                                       : std::to_string(value);
}

void require_finite(const std::string& name, double value) {
  if (!std::isfinite(value))
    throw InvalidRequestError(name + " is " + number(value) + ": it must be finite");
}

void require_distinct(const std::string& name, const std::vector<Index>& given) {
  if (given.empty()) throw InvalidRequestError(name + " is empty, so nothing would be changed");
  std::set<Index> seen;
  for (const Index one : given) {
    if (!seen.insert(one).second)
      throw InvalidRequestError(name + " names " + std::to_string(one) + " twice");
  }
}

v1::Indices indices(const char* name, const std::vector<Index>& given) {
  v1::Indices message;
  for (const Index one : given) message.add_indices(internal::to_int32(name, one));
  return message;
}

/// An edit without its operation yet.
EditParts begun(const Site& site, const Selection& where, Sources sources = {}) {
  EditParts parts{.message = {}, .sources = std::move(sources)};
  v1::Intervention& message = parts.message;
  *message.mutable_site() = site.parts().message;
  if (where.positions())
    *message.mutable_chosen_positions() = indices("pos", *where.positions());
  else if (where.is_last())
    message.set_last_position(true);
  else
    message.set_all_positions(true);
  if (where.rows())
    *message.mutable_chosen_rows() = indices("batch", *where.rows());
  else
    message.set_all_rows(true);
  return parts;
}

/// Of a source, as many as are changed.
v1::Indices mapped(const char* name, const std::vector<Index>& given,
                   const std::optional<std::vector<Index>>& changed) {
  if (!changed || changed->size() != given.size()) {
    const std::string count = changed ? std::to_string(changed->size()) : "all";
    throw InvalidRequestError(std::string(name) + " of the source has " +
                              std::to_string(given.size()) + " entries for " + count +
                              " that are changed: name as many");
  }
  return indices(name, given);
}

void require_literal(const Tensor& values) {
  const std::size_t axes = values.shape().size();
  if (axes < 1 || axes > 2 || values.size() == 0 || !is_floating(values.dtype())) {
    std::string shape;
    for (const std::size_t length : values.shape()) shape += " " + std::to_string(length);
    throw InvalidRequestError(
        "a vector is floating numbers [d], or [n d] with a row for each position, got " +
        std::string(name_of(values.dtype())) + " of shape [" +
        (shape.empty() ? shape : shape.substr(1)) + "]");
  }
  const std::vector<double> elements = values.doubles();
  const auto wrong = std::find_if(elements.begin(), elements.end(),
                                  [](double element) { return !std::isfinite(element); });
  if (wrong != elements.end()) {
    throw InvalidRequestError("a vector has elements that are not finite: the first is element " +
                              std::to_string(wrong - elements.begin()));
  }
}

Sources joined(Sources one, const Sources& other) {
  one.insert(one.end(), other.begin(), other.end());
  return one;
}

void require_bounds(double least, double most) {
  if (least <= most) return;  // NaN is neither
  throw InvalidRequestError("clamp between " + number(least) + " and " + number(most) +
                            ": the first must not be over the second");
}

EditParts added(const Site& site, const Vector& vector, double factor, const Selection& where,
                bool relative) {
  require_finite("factor", factor);
  EditParts parts = begun(site, where, vector.parts().sources);
  v1::AddEdit& add = *parts.message.mutable_add();
  *add.mutable_vector() = vector.parts().message;
  add.set_factor(factor);
  add.set_relative(relative);
  return parts;
}

}  // namespace

Selection Selection::all() { return {}; }

Selection Selection::last() {
  Selection made;
  made.is_last_ = true;
  return made;
}

Selection Selection::at(std::vector<Index> positions) {
  require_distinct("positions", positions);
  Selection made;
  made.positions_ = std::move(positions);
  return made;
}

Selection Selection::of_rows(std::vector<Index> rows) const {
  require_distinct("rows", rows);
  Selection made = *this;
  made.rows_ = std::move(rows);
  return made;
}

Vector::Vector(VectorParts parts)
    : parts_(std::make_shared<const VectorParts>(std::move(parts))) {}

Vector Vector::literal(const Tensor& values) {
  require_literal(values);
  VectorParts parts;
  v1::Tensor& sent = *parts.message.mutable_literal();
  sent.set_dtype(internal::to_wire(values.dtype()));
  for (const std::size_t length : values.shape()) sent.add_shape(length);
  sent.set_data(values.bytes().data(), values.bytes().size());
  return Vector(std::move(parts));
}

Vector Vector::literal(std::span<const float> values) {
  return literal(Tensor::of_floats(values));
}

Vector Vector::value_of(const Site& site, const Client& source, Index row, Index pos) {
  VectorParts parts{.message = {}, .sources = {source.current_run()}};
  v1::RunValue& value = *parts.message.mutable_value();
  value.set_run_id(parts.sources[0]->run_id);
  *value.mutable_site() = site.parts().message;
  value.set_row(internal::to_int32("batch", row));
  value.set_pos(internal::to_int32("pos", pos));
  return Vector(std::move(parts));
}

Vector Vector::unembedding(Index token) {
  VectorParts parts;
  parts.message.set_unembedding(internal::to_int32("token", token));
  return Vector(std::move(parts));
}

Vector Vector::neuron_output(Index layer, Index neuron) {
  VectorParts parts;
  v1::NeuronVector& written = *parts.message.mutable_neuron_output();
  written.set_layer(internal::to_int32("layer", layer));
  written.set_neuron(internal::to_int32("neuron", neuron));
  return Vector(std::move(parts));
}

Vector Vector::sae_feature(const std::string& sae, Index feature, FeatureDirection direction) {
  VectorParts parts;
  v1::SaeFeatureVector& of_sae = *parts.message.mutable_sae_feature();
  of_sae.set_sae(internal::sae_name(sae));
  of_sae.set_feature(internal::to_int32("feature", feature));
  of_sae.set_direction(static_cast<v1::FeatureDirection>(direction));
  return Vector(std::move(parts));
}

Vector operator-(const Vector& minuend, const Vector& subtrahend) {
  const VectorParts& one = minuend.parts();
  const VectorParts& other = subtrahend.parts();
  const int depth = 1 + std::max(one.depth, other.depth);
  if (depth > kDeepest) {
    throw InvalidRequestError("a vector is " + std::to_string(depth) +
                              " differences deep, at most " + std::to_string(kDeepest) +
                              " can be");
  }
  VectorParts parts{
      .message = {}, .sources = joined(one.sources, other.sources), .depth = depth};
  *parts.message.mutable_difference()->mutable_minuend() = one.message;
  *parts.message.mutable_difference()->mutable_subtrahend() = other.message;
  return Vector(std::move(parts));
}

Edit::Edit(EditParts parts) : parts_(std::make_shared<const EditParts>(std::move(parts))) {}

Edit Edit::zero(const Site& site, const Selection& where) { return scale(site, 0, where); }

Edit Edit::scale(const Site& site, double factor, const Selection& where) {
  require_finite("factor", factor);
  EditParts parts = begun(site, where);
  parts.message.mutable_scale()->set_factor(factor);
  return Edit(std::move(parts));
}

Edit Edit::add(const Site& site, const Vector& vector, double factor, const Selection& where) {
  return Edit(added(site, vector, factor, where, false));
}

Edit Edit::add_relative(const Site& site, const Vector& vector, double factor,
                        const Selection& where) {
  return Edit(added(site, vector, factor, where, true));
}

Edit Edit::set(const Site& site, const Vector& vector, const Selection& where) {
  EditParts parts = begun(site, where, vector.parts().sources);
  *parts.message.mutable_set()->mutable_vector() = vector.parts().message;
  return Edit(std::move(parts));
}

Edit Edit::mean(const Site& site, const Client& source, const Selection& where) {
  EditParts parts = begun(site, where, {source.current_run()});
  parts.message.mutable_mean()->set_run_id(parts.sources[0]->run_id);
  return Edit(std::move(parts));
}

Edit Edit::patch(const Site& site, const Client& source, const Selection& where,
                 const PatchFrom& from) {
  EditParts parts = begun(site, where, {source.current_run()});
  v1::PatchEdit& patch = *parts.message.mutable_patch();
  patch.set_run_id(parts.sources[0]->run_id);
  if (from.rows) *patch.mutable_source_rows() = mapped("rows", *from.rows, where.rows());
  if (from.positions)
    *patch.mutable_source_positions() = mapped("positions", *from.positions, where.positions());
  return Edit(std::move(parts));
}

Edit Edit::project(const Site& site, const Vector& vector, double factor, const Selection& where) {
  require_finite("factor", factor);
  EditParts parts = begun(site, where, vector.parts().sources);
  *parts.message.mutable_project()->mutable_vector() = vector.parts().message;
  parts.message.mutable_project()->set_factor(factor);
  return Edit(std::move(parts));
}

Edit Edit::clamp(const Site& site, const Vector& vector, double least, double most,
                 const Selection& where) {
  require_bounds(least, most);
  EditParts parts = begun(site, where, vector.parts().sources);
  v1::ClampEdit& clamp = *parts.message.mutable_clamp();
  *clamp.mutable_vector() = vector.parts().message;
  clamp.set_least(least);
  clamp.set_most(most);
  return Edit(std::move(parts));
}

Edit Edit::clamp_feature(const Site& site, const std::string& sae, Index feature, double least,
                         double most, const Selection& where) {
  require_bounds(least, most);
  EditParts parts = begun(site, where);
  v1::ClampFeatureEdit& clamp = *parts.message.mutable_clamp_feature();
  clamp.set_sae(internal::sae_name(sae));
  clamp.set_feature(internal::to_int32("feature", feature));
  clamp.set_least(least);
  clamp.set_most(most);
  return Edit(std::move(parts));
}

Edit Edit::swap(const Site& site, const Vector& origin, const Vector& target,
                const Selection& where) {
  EditParts parts = begun(site, where, joined(origin.parts().sources, target.parts().sources));
  *parts.message.mutable_swap()->mutable_origin() = origin.parts().message;
  *parts.message.mutable_swap()->mutable_target() = target.parts().message;
  return Edit(std::move(parts));
}

Edit Edit::noise(const Site& site, double sd, std::int64_t seed, const Selection& where) {
  require_finite("sd", sd);
  if (sd < 0)
    throw InvalidRequestError("sd is " + number(sd) + ": a standard deviation is 0 or more");
  EditParts parts = begun(site, where);
  parts.message.mutable_noise()->set_sd(sd);
  parts.message.mutable_noise()->set_seed(seed);
  return Edit(std::move(parts));
}

}  // namespace transparent_llm
