#include "transparent_llm/site.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "edit_parts.h"
#include "methods.h"
#include "transparent_llm/errors.h"

namespace transparent_llm {

using internal::SiteParts;

namespace {

SiteParts of_layer(v1::SiteKind kind, Index layer) {
  SiteParts parts;
  parts.message.set_kind(kind);
  parts.message.set_layer(internal::to_int32("layer", layer));
  return parts;
}

SiteParts of_head(v1::SiteKind kind, Index layer, Index head) {
  SiteParts parts = of_layer(kind, layer);
  parts.message.set_head(internal::to_int32("head", head));
  return parts;
}

SiteParts of_all_heads(v1::SiteKind kind, Index layer) {
  SiteParts parts = of_layer(kind, layer);
  parts.message.set_all_heads(true);
  return parts;
}

/// The first of some numbers, and how many there are.
std::string listed(const google::protobuf::RepeatedField<std::int32_t>& numbers) {
  constexpr int kMostListed = 8;
  std::string text;
  for (int i = 0; i < std::min(numbers.size(), kMostListed); ++i)
    text += (i == 0 ? "" : ", ") + std::to_string(numbers[i]);
  if (numbers.size() > kMostListed) text += ", ... " + std::to_string(numbers.size()) + " in all";
  return "[" + text + "]";
}

}  // namespace

Site::Site(SiteParts parts) : parts_(std::make_shared<const SiteParts>(std::move(parts))) {}

Site Site::residual_in(Index layer) { return Site(of_layer(v1::SITE_KIND_RESIDUAL_IN, layer)); }

Site Site::residual_after_attn(Index layer) {
  return Site(of_layer(v1::SITE_KIND_RESIDUAL_AFTER_ATTN, layer));
}

Site Site::residual_out(Index layer) { return Site(of_layer(v1::SITE_KIND_RESIDUAL_OUT, layer)); }

Site Site::attn_out(Index layer) { return Site(of_layer(v1::SITE_KIND_ATTN_OUT, layer)); }

Site Site::ffn_out(Index layer) { return Site(of_layer(v1::SITE_KIND_FFN_OUT, layer)); }

Site Site::head(Index layer, Index head) {
  return Site(of_head(v1::SITE_KIND_HEAD, layer, head));
}

Site Site::pattern(Index layer, Index head) {
  return Site(of_head(v1::SITE_KIND_PATTERN, layer, head));
}

Site Site::query(Index layer, Index head) {
  return Site(of_head(v1::SITE_KIND_QUERY, layer, head));
}

Site Site::key(Index layer, Index head) {
  return Site(of_head(v1::SITE_KIND_KEY, layer, head));
}

Site Site::value(Index layer, Index head) {
  return Site(of_head(v1::SITE_KIND_VALUE, layer, head));
}

Site Site::all_heads(Index layer) { return Site(of_all_heads(v1::SITE_KIND_HEAD, layer)); }

Site Site::all_patterns(Index layer) { return Site(of_all_heads(v1::SITE_KIND_PATTERN, layer)); }

Site Site::all_queries(Index layer) { return Site(of_all_heads(v1::SITE_KIND_QUERY, layer)); }

Site Site::all_keys(Index layer) { return Site(of_all_heads(v1::SITE_KIND_KEY, layer)); }

Site Site::all_values(Index layer) { return Site(of_all_heads(v1::SITE_KIND_VALUE, layer)); }

Site Site::neurons(Index layer, std::span<const Index> neurons) {
  if (neurons.empty())
    throw InvalidRequestError("neurons is empty: name at least one, or write all_neurons");
  SiteParts parts = of_layer(v1::SITE_KIND_NEURONS, layer);
  for (const Index neuron : neurons)
    parts.message.add_neurons(internal::to_int32("neuron", neuron));
  return Site(std::move(parts));
}

Site Site::neurons(Index layer, std::initializer_list<Index> neurons) {
  return Site::neurons(layer, std::span(neurons.begin(), neurons.size()));
}

Site Site::all_neurons(Index layer) { return Site(of_layer(v1::SITE_KIND_NEURONS, layer)); }

std::string internal::name_of(const v1::Site& site) {
  std::string name = v1::SiteKind_Name(site.kind()).substr(std::string("SITE_KIND_").size());
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  name += "(" + std::to_string(site.layer());
  if (site.has_head()) name += ", " + std::to_string(site.head());
  if (site.neurons_size() > 0) name += ", " + listed(site.neurons());
  return name + ")";
}

}  // namespace transparent_llm
