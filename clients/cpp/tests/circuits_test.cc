// Weights of heads, of the real server's model.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "real_server.h"
#include "transparent_llm/client.h"

namespace transparent_llm {
namespace {

using Shape = std::vector<std::size_t>;

TEST(CircuitsTest, WeightsAndScoresNeedNoRun) {
  Client llm = Client::connect(test::real_server());
  const ModelInfo model = llm.model_info();
  const std::size_t n_layers = model.n_layers, n_heads = model.n_heads;
  const HeadWeights weights = llm.head_weights(0, 1);
  EXPECT_EQ(weights.q.shape(), weights.k.shape());
  EXPECT_EQ(weights.q.shape()[0], model.d_model);
  EXPECT_EQ(weights.o.shape(), (Shape{weights.v.shape()[1], model.d_model}));
  const Tensor scores = llm.composition_scores(
      CompositionKind::kV, {.slices = {{"layer", {.stop = 1}}, {"later_layer", {.start = -1}}}});
  EXPECT_EQ(scores.shape(), (Shape{1, n_heads, 1, n_heads}));
  EXPECT_EQ(llm.copying_scores().shape(), (Shape{n_layers, n_heads}));
  EXPECT_THROW(llm.head_weights(99, 0), IndexOutOfRangeError);
  EXPECT_THROW(llm.head_weights(Index{1} << 40, 0), IndexOutOfRangeError);
}

TEST(CircuitsTest, ARunDoesNotChangeThem) {
  Client llm = Client::connect(test::real_server());
  const HeadWeights before = llm.head_weights(-1, 0);
  llm.run({"My lord"});
  EXPECT_EQ(llm.head_weights(-1, 0).o.doubles(), before.o.doubles());
}

TEST(FeaturesTest, AModelWithoutSparseAutoencodersHasNoFeatures) {
  Client llm = Client::connect(test::real_server());
  llm.run({"My lord"});
  EXPECT_THROW(llm.features(0, 5), NotSupportedError);
  EXPECT_THROW(llm.feature_activations(0, {1}), NotSupportedError);
}

TEST(FeaturesTest, WhatMakesNoSenseIsRefusedHere) {
  EXPECT_THROW(Vector::sae_feature("", 1), InvalidRequestError);
  EXPECT_THROW(Edit::clamp_feature(Site::residual_out(0), "sae", 1, 2, 1, Selection::all()),
               InvalidRequestError);
  EXPECT_THROW(Edit::clamp_feature(Site::residual_out(0), "sae", Index{1} << 40, 0, 1,
                                   Selection::all()),
               IndexOutOfRangeError);
}

}  // namespace
}  // namespace transparent_llm
