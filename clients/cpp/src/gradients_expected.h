// What the tensors of gradients are before they come.

#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "current_run.h"
#include "expected.h"
#include "sinks.h"
#include "transparent_llm/description.h"
#include "transparent_llm/v1/gradients.pb.h"

namespace transparent_llm::internal {

/// All of them, in their order.
class ExpectedGradients final : public ExpectedTensors {
 public:
  /// Of a request, of a run and of its model where that is known.
  ExpectedGradients(const v1::GradientsRequest& request, const CurrentRun& run,
                    const std::optional<ModelDescription>& model);

  std::size_t most() const override { return expected_.size(); }
  void check(const TensorHeader& header) const override;
  /// All are one value, so that a limit is one of their sum.
  bool continues(const TensorHeader&, const TensorHeader&) const override { return true; }

  /// Those that came. Throws InternalError if they are not all, in their order.
  std::vector<Tensor> whole(std::vector<NamedTensor> came) const;

 private:
  struct One {
    std::string name;
    std::vector<std::string> dims;
    Dtype dtype;
    Sizes sizes;
  };
  static void require(const One& wanted, const std::string& name, Dtype dtype,
                      const std::vector<std::string>& dims, const std::vector<std::size_t>& shape);

  std::vector<One> expected_;
};

}  // namespace transparent_llm::internal
