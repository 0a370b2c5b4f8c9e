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

using Interventions = google::protobuf::RepeatedPtrField<v1::Intervention>;

/// Adds edits to those of a request; the runs that they take from, each once. Throws TooLargeError
/// (TOO_LONG) for more than a run can have.
Sources add_edits(Interventions& added, const std::vector<Edit>& edits);

/// Of an answer to a request with so many edits. Throws InternalError for more or fewer.
std::vector<EditEffect> effects_of(const v1::RunResponse& response, int n_edits);

}  // namespace transparent_llm::internal
