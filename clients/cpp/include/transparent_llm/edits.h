// Changes of a run, as data: where, which elements, and what becomes of them.
//
//   llm.run({"My lord, the king"}, {.edits = {Edit::zero(Site::head(1, 2), Selection::all())}});
//   llm.run({corrupt}, {.edits = {Edit::patch(Site::residual_in(2), clean, Selection::at({3}))}});
//
// Edits are made in the order in which the model comes to their sites; at one site in the order of
// the list, each of what the one before left. Every value that is then read is one of the edited
// run. They are computed in float32 at least and rounded once, so that what changes nothing changes
// no bit.

#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "transparent_llm/index.h"
#include "transparent_llm/site.h"
#include "transparent_llm/tensor.h"

namespace transparent_llm {

class Client;

namespace internal {
struct VectorParts;
struct EditParts;
}  // namespace internal

/// Which elements of a site are changed: positions of each row, and those of all rows of the batch
/// unless `of_rows` says which. Nothing is edited everywhere unasked: there is no default. Padding
/// is never changed.
class Selection {
 public:
  /// All tokens.
  static Selection all();
  /// The last token of each row.
  static Selection last();
  /// These; negative ones count from the last token of their row. Throws InvalidRequestError for
  /// none, or one twice.
  static Selection at(std::vector<Index> positions);
  /// The same of these rows only. Throws as `at`.
  Selection of_rows(std::vector<Index> rows) const;

  bool is_last() const { return is_last_; }
  /// Absent: all, or the last.
  const std::optional<std::vector<Index>>& positions() const { return positions_; }
  /// Absent: all.
  const std::optional<std::vector<Index>>& rows() const { return rows_; }

 private:
  Selection() = default;
  bool is_last_ = false;
  std::optional<std::vector<Index>> positions_;
  std::optional<std::vector<Index>> rows_;
};

/// Of a feature of a sparse autoencoder.
enum class FeatureDirection {
  /// What it writes.
  kDecoder = 1,
  /// What it reads.
  kEncoder = 2,
};

/// As wide as the site that it is used at: numbers that are sent, or what is found where the model
/// is, which needs no upload.
class Vector {
 public:
  /// Floating numbers [d], or [n d] with a row for each selected position. Throws
  /// InvalidRequestError for another shape or type, and for elements that are not finite.
  static Vector literal(const Tensor& values);
  static Vector literal(std::span<const float> values);
  /// What the current run of `source` has at a site, at one position of one row. That run is meant,
  /// also when `source` runs something else later. Throws NotRunError if it has none.
  static Vector value_of(const Site& site, const Client& source, Index row, Index pos);
  /// The column of the unembedding for a token [d_model]: the direction that its logit reads.
  static Vector unembedding(Index token);
  /// What a neuron writes [d_model].
  static Vector neuron_output(Index layer, Index neuron);

  /// What a feature of a sparse autoencoder or transcoder of the model writes (its row of the
  /// decoder), as wide as the site of its output, or what it reads (its column of the encoder).
  /// Negative features count from the end. Throws InvalidRequestError for no name.
  static Vector sae_feature(const std::string& sae, Index feature,
                            FeatureDirection direction = FeatureDirection::kDecoder);

  const internal::VectorParts& parts() const { return *parts_; }

 private:
  friend Vector operator-(const Vector& minuend, const Vector& subtrahend);
  explicit Vector(internal::VectorParts parts);
  std::shared_ptr<const internal::VectorParts> parts_;
};

/// One vector less another. Throws InvalidRequestError for more than 8 differences within each
/// other.
Vector operator-(const Vector& minuend, const Vector& subtrahend);

/// Of `Edit::patch`: what of the source stands in the places of what is changed. Absent: the same.
struct PatchFrom {
  /// Of as many as `Selection::at` names.
  std::optional<std::vector<Index>> positions = std::nullopt;
  /// Of as many as `Selection::of_rows` names.
  std::optional<std::vector<Index>> rows = std::nullopt;
};

/// One change of a run. Throws InvalidRequestError for numbers that make no sense.
class Edit {
 public:
  /// Zero ablation.
  static Edit zero(const Site& site, const Selection& where);
  /// x times a factor.
  static Edit scale(const Site& site, double factor, const Selection& where);
  /// x + factor * v (steering).
  static Edit add(const Site& site, const Vector& vector, double factor, const Selection& where);
  /// x + factor * v * norm(x) / norm(v): the factor is relative to what is there.
  static Edit add_relative(const Site& site, const Vector& vector, double factor,
                           const Selection& where);
  /// v [d], or a row of it for each selected position [n d], instead of x.
  static Edit set(const Site& site, const Vector& vector, const Selection& where);
  /// Mean ablation: the mean over all tokens of the current run of `source` at the same site. As
  /// `Vector::value_of`.
  static Edit mean(const Site& site, const Client& source, const Selection& where);
  /// What the current run of `source` has at the same site, with its own edits (activation
  /// patching). As `Vector::value_of`.
  static Edit patch(const Site& site, const Client& source, const Selection& where,
                    const PatchFrom& from = {});
  /// x + (factor - 1) (x.u) u, where u = v / norm(v): 0 removes what is along v.
  static Edit project(const Site& site, const Vector& vector, double factor,
                      const Selection& where);
  /// x with its coordinate x.u along u = v / norm(v) brought between two bounds, of which one may
  /// be infinite.
  static Edit clamp(const Site& site, const Vector& vector, double least, double most,
                    const Selection& where);
  /// x with the activation of a feature of a sparse autoencoder of this site brought between two
  /// bounds, of which one may be infinite. What the sparse autoencoder does not account for stays.
  static Edit clamp_feature(const Site& site, const std::string& sae, Index feature, double least,
                            double most, const Selection& where);
  /// x - (x.s) s + (x.s) t, for unit vectors of both: what is along one is turned to the other.
  static Edit swap(const Site& site, const Vector& origin, const Vector& target,
                   const Selection& where);
  /// x + sd times a standard normal number, the same for the same seed on every machine, whatever
  /// else the batch has.
  static Edit noise(const Site& site, double sd, std::int64_t seed, const Selection& where);

  const internal::EditParts& parts() const { return *parts_; }

 private:
  explicit Edit(internal::EditParts parts);
  std::shared_ptr<const internal::EditParts> parts_;
};

/// What one edit of a run did. One that changed nothing is no error, and this is where it shows.
struct EditEffect {
  /// The edit in words.
  std::string edit;
  /// Elements that it had before it.
  std::uint64_t selected = 0;
  /// Elements that are other numbers afterwards.
  std::uint64_t changed = 0;
  /// L2 norm of all that was added.
  double delta_norm = 0;
  /// L2 norm of the selected elements before.
  double norm = 0;
  /// The largest change of one element.
  double max_delta = 0;

  /// The norm of the change over that of what was changed; 0 where both are 0.
  double relative() const;
  bool operator==(const EditEffect&) const = default;
};

/// What a run can be given beyond its input.
struct RunOptions {
  /// In place of `Options::timeout`.
  std::optional<std::chrono::milliseconds> timeout = std::nullopt;
  /// Cancels the call: it then throws CancelledError at once, and the server is told.
  std::stop_token stop_token = {};
  /// Changes on its way, at most 64.
  std::vector<Edit> edits = {};
};

}  // namespace transparent_llm
