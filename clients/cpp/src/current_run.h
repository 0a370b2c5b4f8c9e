// What a client knows of a run.

#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "transparent_llm/edits.h"
#include "transparent_llm/tensor.h"
#include "transparent_llm/v1/service.pb.h"

namespace transparent_llm::internal {

struct CurrentRun;

/// Other runs that edits take from.
using Sources = std::vector<std::shared_ptr<const CurrentRun>>;

struct CurrentRun {
  /// What it was made of, to make it again.
  v1::RunRequest request;
  /// The routing key of all its calls.
  std::string key;
  std::string run_id;
  std::string model_digest;
  /// I64 [batch pos]
  Tensor tokens;
  /// BOOL [batch pos]; absent where the model does not distinguish padding from tokens.
  std::optional<Tensor> mask;
  /// Of each of its edits.
  std::vector<EditEffect> effects;
  /// To make them again, before this one.
  Sources sources;
  /// As long as anyone has this run, what was read of it may be kept.
  std::shared_ptr<const char> life = std::make_shared<const char>();
};

/// From the answer to `request`. Throws InternalError for one that contradicts itself or what was
/// sent.
CurrentRun current_run(v1::RunRequest request, std::string key, const v1::RunResponse& response,
                       Sources sources = {});

}  // namespace transparent_llm::internal
