// What can be told of gradients: forms and paths.

#include <limits>
#include <utility>

#include "edit_parts.h"
#include "gradient_parts.h"
#include "methods.h"
#include "transparent_llm/client.h"
#include "transparent_llm/errors.h"

namespace transparent_llm {

using internal::GradientParts;
using internal::PathParts;

namespace {

constexpr Index kMostSteps = 1000;

GradientParts of_form(v1::GradientForm form, const Site& site) {
  GradientParts parts;
  *parts.message.mutable_site() = site.parts().message;
  parts.message.set_form(form);
  return parts;
}

PathParts of_steps(Index steps) {
  if (steps < 1 || steps > kMostSteps) {
    throw InvalidRequestError("a path has 1 to " + std::to_string(kMostSteps) + " steps, got " +
                              std::to_string(steps));
  }
  PathParts parts;
  parts.message.set_steps(static_cast<std::uint32_t>(steps));
  *parts.message.mutable_site() = Site::residual_in(0).parts().message;
  return parts;
}

bool has_paths(v1::SiteKind kind) {
  switch (kind) {
    case v1::SITE_KIND_RESIDUAL_IN:
    case v1::SITE_KIND_RESIDUAL_OUT:
    case v1::SITE_KIND_ATTN_OUT:
    case v1::SITE_KIND_FFN_OUT:
    case v1::SITE_KIND_HEAD:
      return true;
    default:
      return false;
  }
}

}  // namespace

SiteGradient::SiteGradient(GradientParts parts)
    : parts_(std::make_shared<const GradientParts>(std::move(parts))) {}

SiteGradient SiteGradient::by(const Site& site) {
  return SiteGradient(of_form(v1::GRADIENT_FORM_GRADIENT, site));
}

SiteGradient SiteGradient::times_activation(const Site& site) {
  return SiteGradient(of_form(v1::GRADIENT_FORM_TIMES_ACTIVATION, site));
}

SiteGradient SiteGradient::times_difference(const Site& site, const Client& source,
                                            const std::vector<Index>& rows) {
  GradientParts parts = of_form(v1::GRADIENT_FORM_TIMES_DIFFERENCE, site);
  parts.sources = {source.current_run()};
  parts.message.set_run_id(parts.sources[0]->run_id);
  internal::add_indices(*parts.message.mutable_source_rows(), "batch", rows);
  return SiteGradient(std::move(parts));
}

SiteGradient SiteGradient::norm(const Site& site) {
  return SiteGradient(of_form(v1::GRADIENT_FORM_NORM, site));
}

GradientPath::GradientPath(PathParts parts)
    : parts_(std::make_shared<const PathParts>(std::move(parts))) {}

GradientPath GradientPath::from_zero(Index steps) {
  PathParts parts = of_steps(steps);
  parts.message.set_zero(true);
  return GradientPath(std::move(parts));
}

GradientPath GradientPath::from_token(Index token, Index steps) {
  PathParts parts = of_steps(steps);
  parts.message.set_token_id(internal::to_int32("token", token));
  return GradientPath(std::move(parts));
}

GradientPath GradientPath::from_run(const Client& other, Index steps) {
  PathParts parts = of_steps(steps);
  parts.sources = {other.current_run()};
  parts.message.set_run_id(parts.sources[0]->run_id);
  return GradientPath(std::move(parts));
}

GradientPath GradientPath::at(const Site& site) const {
  if (!has_paths(site.parts().message.kind())) {
    throw InvalidRequestError("there is no path at " + internal::name_of(site.parts().message) +
                              ": name residual_in, residual_out, attn_out, ffn_out or head");
  }
  PathParts made = parts();
  *made.message.mutable_site() = site.parts().message;
  return GradientPath(std::move(made));
}

}  // namespace transparent_llm
