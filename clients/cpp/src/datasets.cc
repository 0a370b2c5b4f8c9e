// The method of Client that gives sentences of the server's operator.

#include <algorithm>

#include "client_impl.h"

namespace transparent_llm {

namespace {

constexpr int kMostSentences = 1000;

}  // namespace

std::vector<std::string> Client::dataset(const std::string& name, const CallOptions& options) {
  const auto terms = impl().terms(options);
  impl().require_offered("datasets", "data sets", terms);
  v1::DatasetRequest request;
  request.set_name(name);
  const v1::DatasetResponse response =
      internal::unary(impl().connection(), &internal::Stub::Dataset, request, terms);
  const auto& sentences = response.sentences();
  if (sentences.empty() || sentences.size() > kMostSentences ||
      std::any_of(sentences.begin(), sentences.end(), [](const auto& s) { return s.empty(); }))
    throw InternalError("the server sent a data set of " + std::to_string(sentences.size()) +
                        " sentences; it has 1 to " + std::to_string(kMostSentences) +
                        ", and none is empty");
  return {sentences.begin(), sentences.end()};
}

}  // namespace transparent_llm
