// Gradients: of the real server, where one can tell what they are, and what a server may not answer.

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "real_server.h"
#include "scripted_server.h"
#include "transparent_llm/client.h"
#include "wire.h"

namespace transparent_llm {
namespace {

using Shape = std::vector<std::size_t>;
using Dims = std::vector<std::string>;
const std::vector<std::vector<Index>> kRows = {{1, 2, 3, 4, 5}, {9, 8, 7}};
const std::vector<std::vector<Index>> kOthers = {{11, 12, 13, 14, 15}, {19, 18, 17}};

class GradientsTest : public testing::Test {
 protected:
  void SetUp() override {
    llm.run_tokens(kRows);
    other.run_tokens(kOthers);
  }

  Client llm = Client::connect(test::real_server());
  Client other = llm.copy();
  const Metric logit = Metric::logit({5});
};

TEST_F(GradientsTest, OfAProjectionTheyAreItsDirection) {
  const Site site = Site::residual_out(-1);
  std::vector<float> direction(llm.model_info().d_model);
  direction[1] = 3;
  direction[2] = 4;
  const Metric metric = Metric::projection(site, Vector::literal(direction)).at(-2);
  const Gradients got = llm.gradients(
      metric, {SiteGradient::by(site), SiteGradient::times_activation(site), SiteGradient::norm(site)});
  for (std::size_t row = 0; row < 2; ++row) {
    const std::size_t last = llm.last()[row];
    for (std::size_t pos = 0; pos <= last; ++pos) {
      const bool is_there = pos + 1 == last;
      EXPECT_NEAR(got.sites[0].at({row, pos, 1}), is_there ? 0.6 : 0, 1e-6);
      EXPECT_NEAR(got.sites[1].at({row, pos}), is_there ? got.metric.at({row}) : 0, 1e-3);
      EXPECT_NEAR(got.sites[2].at({row, pos}), is_there ? 1 : 0, 1e-5);
    }
  }
}

TEST_F(GradientsTest, AreOfEverySiteWithItsAxes) {
  const std::size_t heads = llm.model_info().n_heads, width = llm.model_info().d_model / heads;
  const std::vector<std::tuple<SiteGradient, Shape, Dims>> wanted = {
      {SiteGradient::by(Site::attn_out(0)), {2, 5, heads * width}, {"batch", "pos", "d_model"}},
      {SiteGradient::by(Site::all_heads(1)),
       {2, 5, heads, width},
       {"batch", "pos", "head", "d_head"}},
      {SiteGradient::by(Site::head(1, 2)), {2, 5, width}, {"batch", "pos", "d_head"}},
      {SiteGradient::norm(Site::all_queries(1)), {2, 5, heads}, {"batch", "pos", "head"}},
      {SiteGradient::by(Site::query(1, 0)), {2, 5, width}, {"batch", "pos", "d_head"}},
      {SiteGradient::times_activation(Site::all_keys(1)), {2, 5, heads}, {"batch", "pos", "kv_head"}},
      {SiteGradient::norm(Site::key(1, 0)), {2, 5}, {"batch", "pos"}},
      {SiteGradient::norm(Site::value(1, 0)), {2, 5}, {"batch", "pos"}},
      {SiteGradient::norm(Site::all_values(1)), {2, 5, heads}, {"batch", "pos", "kv_head"}},
      {SiteGradient::times_activation(Site::all_patterns(0)),
       {2, heads, 5, 5},
       {"batch", "head", "query_pos", "key_pos"}},
      {SiteGradient::by(Site::pattern(0, 1)), {2, 5, 5}, {"batch", "query_pos", "key_pos"}},
      {SiteGradient::by(Site::neurons(0, {3, 5})), {2, 5, 2}, {"batch", "pos", "neuron"}},
      {SiteGradient::norm(Site::all_neurons(-1)), {2, 5, 512}, {"batch", "pos", "neuron"}},
      {SiteGradient::by(Site::neurons(0, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10})),
       {2, 5, 10},
       {"batch", "pos", "neuron"}},
  };
  std::vector<SiteGradient> sites;
  for (const auto& [site, shape, dims] : wanted) sites.push_back(site);
  const Gradients got = llm.gradients(
      logit, sites, {.frozen = {FrozenPart::kNormScales, FrozenPart::kNeurons}});
  ASSERT_EQ(got.sites.size(), wanted.size());
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    SCOPED_TRACE(i);
    EXPECT_EQ(got.sites[i].shape(), std::get<1>(wanted[i]));
    EXPECT_EQ(got.sites[i].dims(), std::get<2>(wanted[i]));
    EXPECT_EQ(got.sites[i].dtype(), Dtype::kF32);
  }
  const Gradients one = llm.gradients(logit, {SiteGradient::norm(Site::residual_in(0))}, {.rows = {-1}});
  EXPECT_EQ(one.sites[0].shape(), (Shape{1, 3}));
}

TEST_F(GradientsTest, AttributionPatchingTakesFromARunThatWasLost) {
  const Site site = Site::residual_in(1);
  const std::vector<SiteGradient> sites = {SiteGradient::times_difference(site, other, {0, 1}),
                                           SiteGradient::by(site)};
  const Tensor here = llm.residual_in(1), there = other.residual_in(1);
  other.release();
  llm.release();
  const Gradients got = llm.gradients(Metric::logprob({5, 6}).minus({7}), sites);
  for (std::size_t pos = 0; pos < 3; ++pos) {
    double sum = 0;
    for (std::size_t i = 0; i < here.shape()[2]; ++i)
      sum += (there.at({1, pos, i}) - here.at({1, pos, i})) * got.sites[1].at({1, pos, i});
    EXPECT_NEAR(got.sites[0].at({1, pos}), sum, 1e-3 * (1 + std::abs(sum)));
  }
}

TEST_F(GradientsTest, EditsAreDifferentiatedThrough) {
  const Site site = Site::residual_in(1);
  const std::vector<Edit> edits = {Edit::zero(Site::head(1, 0), Selection::all())};
  const Gradients got = llm.gradients(
      logit, {SiteGradient::by(site), SiteGradient::norm(Site::head(1, 0))}, {.edits = edits});
  Client edited = llm.copy();
  edited.run_tokens(kRows, {.edits = edits});
  EXPECT_NEAR(got.metric.at({0}), edited.logits().at({0, 4, 5}), 1e-3);
  EXPECT_NE(got.metric.at({0}), llm.gradients(logit, {SiteGradient::by(site)}).metric.at({0}));
}

TEST_F(GradientsTest, IntegratedGradientsAddUpToTheirSpan) {
  for (const GradientPath& path :
       {GradientPath::from_zero(8), GradientPath::from_token(3, 8), GradientPath::from_run(other, 8),
        GradientPath::from_run(other, 8).at(Site::all_heads(1))}) {
    const IntegratedGradients got = llm.integrated_gradients(logit, path);
    const std::vector<double> values = got.values.doubles();
    const std::size_t n_of_row = values.size() / 2;
    for (std::size_t row = 0; row < 2; ++row) {
      double sum = 0;
      for (std::size_t i = 0; i < n_of_row; ++i) sum += values[row * n_of_row + i];
      const double span = got.metric.at({row}) - got.baseline_metric.at({row});
      EXPECT_NEAR(sum - got.delta.at({row}), span, 1e-2);
    }
  }
  const Dims dims = llm.integrated_gradients(logit, GradientPath::from_zero(1).at(Site::all_heads(1)))
                        .values.dims();
  EXPECT_EQ(dims, (Dims{"batch", "pos", "head", "d_head"}));
}

TEST_F(GradientsTest, EdgesOfASenderAddUpToItsNodeWhereItIsReadOnce) {
  const EdgeAttribution got = llm.edge_attribution(logit, other);
  const std::size_t layers = llm.model_info().n_layers, heads = llm.model_info().n_heads;
  const std::size_t n_senders = 1 + layers * (heads + 1);
  EXPECT_EQ(got.query.shape(), (Shape{2, n_senders, layers, heads}));
  EXPECT_EQ(got.ffn.shape(), (Shape{2, n_senders, layers}));
  EXPECT_EQ(got.logits.shape(), (Shape{2, n_senders}));
  const Site last = Site::ffn_out(-1);
  const Gradients node = llm.gradients(logit, {SiteGradient::times_difference(last, other)});
  double sum = 0;
  for (std::size_t pos = 0; pos < 5; ++pos) sum += node.sites[0].at({0, pos});
  EXPECT_NEAR(got.logits.at({0, n_senders - 1}), sum, 1e-3 * (1 + std::abs(sum)));
  const std::vector<ScoredEdge> top = got.top(0, 5);
  ASSERT_EQ(top.size(), 5u);
  for (std::size_t i = 1; i < top.size(); ++i)
    EXPECT_GE(std::abs(top[i - 1].score), std::abs(top[i].score));
  const auto all = got.top(1, 1'000'000);
  EXPECT_EQ(all.size(), n_senders * (3 * layers * heads + layers + 1));
  EXPECT_THROW(got.top(2, 1), IndexOutOfRangeError);
  EXPECT_THROW(got.top(0, 0), InvalidRequestError);
  EXPECT_NE(llm.edge_attribution(logit, other, {.steps = 3, .rows = {0}}).logits.at({0, 0}),
            got.logits.at({0, 0}));
}

TEST_F(GradientsTest, WhatMakesNoSenseIsRefused) {
  const std::vector<SiteGradient> sites = {SiteGradient::by(Site::residual_in(0))};
  EXPECT_THROW(Client::connect(test::real_server()).gradients(logit, sites), NotRunError);
  EXPECT_THROW(llm.gradients(logit, {}), InvalidRequestError);
  EXPECT_THROW(llm.gradients(logit, std::vector<SiteGradient>(4097, sites[0])), TooLargeError);
  EXPECT_THROW(llm.gradients(logit, {SiteGradient::by(Site::residual_in(4))}), IndexOutOfRangeError);
  EXPECT_THROW(llm.gradients(logit, sites, {.rows = {9}}), IndexOutOfRangeError);
  EXPECT_THROW(llm.gradients(logit, sites, {.frozen = {FrozenPart::kNeurons, FrozenPart::kNeurons}}),
               InvalidRequestError);
  EXPECT_THROW(llm.gradients(logit, sites, {.frozen = {FrozenPart{}}}), InvalidRequestError);
  const std::vector<Edit> many(513, Edit::zero(Site::head(0, 0), Selection::all()));
  EXPECT_THROW(llm.gradients(logit, sites, {.edits = many}), TooLargeError);
  EXPECT_THROW(GradientPath::from_zero(0), InvalidRequestError);
  EXPECT_THROW(GradientPath::from_token(1, 1001), InvalidRequestError);
  EXPECT_THROW(GradientPath::from_zero(5).at(Site::pattern(0, 0)), InvalidRequestError);
  EXPECT_THROW(llm.edge_attribution(logit, other, {.steps = -1}), InvalidRequestError);
  EXPECT_THROW(llm.edge_attribution(logit, other, {.steps = 1001}), InvalidRequestError);
  EXPECT_THROW(llm.edge_attribution(
                   Metric::projection(Site::residual_out(0), Vector::unembedding(5)), other),
               InvalidRequestError);
  EXPECT_THROW(llm.edge_attribution(logit, Client::connect(test::real_server())), NotRunError);
  llm.run_tokens(kRows, {.edits = {Edit::zero(Site::head(0, 0), Selection::all())}});
  EXPECT_THROW(llm.gradients(logit, sites), InvalidRequestError);
}

using Change = std::function<void(std::vector<v1::TensorChunk>&)>;

v1::TensorChunk tensor(const std::string& name, v1::Dtype dtype,
                       const std::vector<std::uint64_t>& shape, const Dims& dims) {
  std::uint64_t n_bytes = dtype == v1::DTYPE_F64 ? 8 : 4;
  for (const std::uint64_t length : shape) n_bytes *= length;
  return test::header(
      {.name = name, .dtype = dtype, .shape = shape, .dims = dims, .total_bytes = n_bytes},
      std::string(n_bytes, '\1'));
}

/// What a server that answers so, for a run of one row of two tokens, makes of a call.
Gradients answered(const Change& change) {
  std::vector<v1::TensorChunk> chunks = {
      tensor("metric", v1::DTYPE_F64, {1}, {"batch"}),
      tensor("head(0, 1)", v1::DTYPE_F32, {1, 2, 3}, {"batch", "pos", "d_head"}),
      tensor("residual_in(0)", v1::DTYPE_F32, {1, 2}, {"batch", "pos"})};
  change(chunks);
  test::ScriptedServer server;
  server.on_server_info = [](v1::ServerInfoResponse* response) {
    response->add_features("gradients");
    return grpc::Status::OK;
  };
  server.on_gradients = [chunks](const v1::GradientsRequest&, test::Writer* writer) {
    for (const v1::TensorChunk& chunk : chunks) writer->Write(chunk);
    return grpc::Status::OK;
  };
  Client llm = Client::connect(server.address());
  llm.run_tokens({{7, 8}});
  return llm.gradients(Metric::logit({5}), {SiteGradient::by(Site::head(0, 1)),
                                            SiteGradient::norm(Site::residual_in(0))});
}

TEST(ScriptedGradientsTest, AnswersThatAreNotWhatWasAskedForAreInternalErrors) {
  EXPECT_EQ(answered([](auto&) {}).sites[0].shape(), (Shape{1, 2, 3}));
  const std::vector<Change> lies = {
      [](auto& chunks) { chunks.clear(); },
      [](auto& chunks) { chunks.pop_back(); },
      [](auto& chunks) { std::swap(chunks[1], chunks[2]); },
      [](auto& chunks) { chunks.push_back(chunks[2]); },
      [](auto& chunks) { chunks[0] = tensor("metric", v1::DTYPE_F32, {1}, {"batch"}); },
      [](auto& chunks) { chunks[0] = tensor("metric", v1::DTYPE_F64, {2}, {"batch"}); },
      [](auto& chunks) {
        chunks[1] = tensor("head(0, 2)", v1::DTYPE_F32, {1, 2, 3}, {"batch", "pos", "d_head"});
      },
      [](auto& chunks) {
        chunks[1] = tensor("head(0, 1)", v1::DTYPE_F32, {1, 2, 3}, {"batch", "pos", "d_model"});
      },
      [](auto& chunks) {
        chunks[2] = tensor("residual_in(0)", v1::DTYPE_F32, {1, 3}, {"batch", "pos"});
      },
      [](auto& chunks) {
        chunks[2] = tensor("residual_in(0)", v1::DTYPE_F32, {1, 2, 1}, {"batch", "pos", "d_model"});
      },
  };
  for (std::size_t i = 0; i < lies.size(); ++i) {
    SCOPED_TRACE(i);
    EXPECT_THROW(answered(lies[i]), InternalError);
  }
}

TEST(ScriptedGradientsTest, AServerWithoutThemIsNotAsked) {
  test::ScriptedServer server;
  server.on_server_info = [](v1::ServerInfoResponse*) { return grpc::Status::OK; };
  Client llm = Client::connect(server.address());
  llm.run_tokens({{7, 8}});
  EXPECT_THROW(llm.gradients(Metric::logit({5}), {SiteGradient::by(Site::residual_in(0))}),
               NotSupportedError);
  EXPECT_THROW(llm.compare(llm), NotSupportedError);
  EXPECT_THROW(llm.sweep({Edit::zero(Site::head(0, 0), Selection::all())}, {{}}, {Metric::loss()}),
               NotSupportedError);
}

}  // namespace
}  // namespace transparent_llm
