// What sites, vectors and edits are made of.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "current_run.h"
#include "transparent_llm/edits.h"
#include "transparent_llm/v1/interventions.pb.h"

namespace transparent_llm::internal {

struct SiteParts {
  v1::Site message;
};

/// A site as servers name it: "head(1, 2)".
std::string name_of(const v1::Site& site);

struct VectorParts {
  v1::Vector message;
  Sources sources = {};
  /// Of differences within each other.
  int depth = 0;
};

struct EditParts {
  v1::Intervention message;
  Sources sources = {};
};

/// The name of a sparse autoencoder. Throws InvalidRequestError for none.
const std::string& sae_name(const std::string& sae);

/// Adds runs that something takes from, each once.
void add_sources(Sources& sources, const Sources& more);
/// Adds indices as they travel. Throws IndexOutOfRangeError for one that is no int32.
void add_indices(google::protobuf::RepeatedField<std::int32_t>& added, const char* name,
                 const std::vector<Index>& given);
/// Throws TooLargeError for more than so many.
void require_few(const std::string& what, std::size_t count, std::size_t most);

/// Edits of one run, and of one cell of a sweep.
inline constexpr std::size_t kMostEdits = 512;

using Interventions = google::protobuf::RepeatedPtrField<v1::Intervention>;

/// Adds edits to those of a request; the runs that they take from, each once. Throws TooLargeError
/// (TOO_LONG) for more than a run can have.
Sources add_edits(Interventions& added, const std::vector<Edit>& edits);

/// Of an answer to a request with so many edits. Throws InternalError for more or fewer.
std::vector<EditEffect> effects_of(const v1::RunResponse& response, int n_edits);

}  // namespace transparent_llm::internal
