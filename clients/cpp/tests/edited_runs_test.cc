// Runs with edits: what a server that remembers little is asked for, and what the real one answers.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "real_server.h"
#include "scripted_server.h"
#include "transparent_llm/client.h"
#include "wire.h"

namespace transparent_llm {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
const std::vector<std::vector<Index>> kTwo = {{7, 8}};
const std::vector<std::vector<Index>> kRows = {{1, 2, 3, 4, 5}, {9, 8, 7}};
const std::vector<std::vector<Index>> kOthers = {{11, 12, 13, 14, 15}, {19, 18, 17}};

std::string raw(const Tensor& tensor) {
  return {reinterpret_cast<const char*>(tensor.bytes().data()), tensor.bytes().size()};
}

/// Makes runs that are named by what was sent, and has those only that were not forgotten.
class EditedRunsTest : public testing::Test {
 protected:
  void SetUp() override {
    server.on_server_info = [this](v1::ServerInfoResponse* response) {
      for (const std::string& feature : features) response->add_features(feature);
      return grpc::Status::OK;
    };
    server.on_run = [this](const v1::RunRequest& request, v1::RunResponse* response) {
      const std::lock_guard lock(mutex);
      asked.push_back(request);
      for (const v1::Intervention& edit : request.edits()) {
        const std::string& id = edit.patch().run_id();
        if (edit.has_patch() && !held.contains(id))
          return test::status_of(grpc::StatusCode::NOT_FOUND, "RUN_NOT_FOUND", {{"run_id", id}});
      }
      *response = test::run_response(test::digest_of(request.SerializeAsString()), "model");
      held.insert(response->run_id());
      for (int i = 0; i < request.edits_size() + more; ++i) response->add_effects();
      return grpc::Status::OK;
    };
  }

  Client connected(Options options = {}) {
    return Client::connect(server.address(), std::move(options));
  }
  static void run(Client& llm, const std::vector<Edit>& edits) {
    llm.run_tokens(kTwo, {.edits = edits});
  }
  static Edit patch(Index layer, const Client& source) {
    return Edit::patch(Site::residual_in(layer), source, Selection::all());
  }

  std::vector<std::string> features = {"edits"};
  int more = 0;  // effects than there are edits
  std::mutex mutex;
  std::set<std::string> held;
  std::vector<v1::RunRequest> asked;
  test::ScriptedServer server;
};

TEST_F(EditedRunsTest, LostSourcesAreRunAgainTheFirstOnesFirst) {
  Client first = connected();
  Client second = first.copy(), last = first.copy();
  run(first, {Edit::zero(Site::residual_in(1), Selection::all())});
  run(second, {patch(2, first)});
  const std::vector<Edit> edits = {patch(3, second)};
  const std::string of_second = second.run_id();
  held.clear();
  asked.clear();
  run(first, {});   // what edits take from are the runs that they were made of
  run(second, {});
  asked.clear();
  run(last, edits);
  std::vector<int> layers;
  for (const v1::RunRequest& one : asked) layers.push_back(one.edits(0).site().layer());
  EXPECT_EQ(layers, (std::vector<int>{3, 2, 1, 2, 3}));
  EXPECT_TRUE(held.contains(of_second));
}

TEST_F(EditedRunsTest, ALostSourceStaysLostWithoutRerun) {
  Client llm = connected({.rerun = false});
  run(llm, {});
  held.clear();
  EXPECT_THROW(run(llm, {patch(0, llm)}), NotFoundError);
  EXPECT_EQ(asked.size(), 2u);
}

TEST_F(EditedRunsTest, ARunThatWasEditedIsMadeAgainSo) {
  int reads = 0;
  server.on_residual_in = [&](const v1::ResidualInRequest& request, test::Writer* writer) {
    if (++reads == 1)
      return test::status_of(grpc::StatusCode::NOT_FOUND, "RUN_NOT_FOUND",
                             {{"run_id", request.run_id()}});
    writer->Write(test::residual(8, std::string(8, '\0')));
    return grpc::Status::OK;
  };
  Client llm = connected();
  run(llm, {Edit::zero(Site::head(0, 1), Selection::last())});
  llm.residual_in(0);
  ASSERT_EQ(asked.size(), 2u);
  EXPECT_EQ(asked[0].SerializeAsString(), asked[1].SerializeAsString());
  EXPECT_EQ(llm.effects().size(), 1u);
}

TEST_F(EditedRunsTest, AServerWithoutEditsIsAskedForNone) {
  features = {};
  Client llm = connected();
  EXPECT_NO_THROW(run(llm, {}));
  EXPECT_THROW(run(llm, {Edit::zero(Site::head(0, 1), Selection::all())}), NotSupportedError);
  EXPECT_EQ(asked.size(), 1u);
}

TEST_F(EditedRunsTest, EffectsOfOtherEditsAreNotBelieved) {
  more = 1;
  Client llm = connected();
  EXPECT_THROW(llm.effects(), NotRunError);
  EXPECT_THROW(run(llm, {}), InternalError);
  EXPECT_THROW(run(llm, {Edit::zero(Site::head(0, 1), Selection::all())}), InternalError);
}

TEST(EditedValuesTest, EveryEditIsMadeByTheRealServer) {
  Client llm = Client::connect(test::real_server());
  Client other = llm.copy();
  other.run_tokens(kOthers);
  llm.run_tokens(kRows);
  std::vector<float> wave(llm.model_info().d_model);
  for (std::size_t i = 0; i < wave.size(); ++i) wave[i] = std::sin(static_cast<float>(i));
  const Vector v = Vector::literal(wave), token = Vector::unembedding(5);
  const Selection second = Selection::at({1});
  const std::vector<Edit> edits = {
      Edit::zero(Site::head(1, 2), Selection::all()),
      Edit::scale(Site::residual_after_attn(0), -0.5, Selection::at({0, -1}).of_rows({1})),
      Edit::add(Site::residual_in(0), v, 2, Selection::last()),
      Edit::add_relative(Site::residual_in(1), token - Vector::unembedding(6), 0.5,
                         Selection::all()),
      Edit::add(Site::residual_out(-1), Vector::neuron_output(1, 7), 3, Selection::at({0})),
      Edit::add(Site::ffn_out(0), Vector::value_of(Site::ffn_out(1), other, 1, -1), 1, second),
      Edit::set(Site::attn_out(1), v, second.of_rows({0, 1})),
      Edit::mean(Site::residual_in(1), other, Selection::all().of_rows({0})),
      Edit::patch(Site::pattern(0, 1), other, Selection::at({2})),
      Edit::patch(Site::residual_in(1), other, Selection::at({0, 1}).of_rows({1}),
                  {.positions = {{-1, 0}}, .rows = {{0}}}),
      Edit::project(Site::residual_in(1), v, 0, second),
      Edit::clamp(Site::residual_in(1), v, 30, kInfinity, second),
      Edit::swap(Site::residual_in(1), v, token, second),
      Edit::noise(Site::neurons(0, {3, 5}), 0.5, -7, second),
      Edit::zero(Site::all_neurons(0), Selection::all()),
  };
  std::set<std::string> names = {llm.run_id()};
  for (const Edit& edit : edits) {
    llm.run_tokens(kRows, {.edits = {edit}});
    ASSERT_EQ(llm.effects().size(), 1u);
    EXPECT_GT(llm.effects()[0].changed, 0u) << llm.effects()[0].edit;
    EXPECT_TRUE(names.insert(llm.run_id()).second) << llm.effects()[0].edit;
  }
}

TEST(EditedValuesTest, ValuesAreTheEditedOnesAlsoOfARunThatIsMadeAgain) {
  Client llm = Client::connect(test::real_server());
  Client other = llm.copy();
  other.run_tokens(kOthers);
  llm.run_tokens(kRows);
  const std::string before = raw(llm.logits());
  llm.run_tokens(kRows,
                 {.edits = {Edit::patch(Site::residual_in(1), other, Selection::at({2}))}});
  const ReadOptions third{.slices = {{"pos", {.start = 2, .stop = 3}}}};
  EXPECT_EQ(raw(llm.residual_in(1, third)), raw(other.residual_in(1, third)));
  const std::string after = raw(llm.logits()), name = llm.run_id();
  EXPECT_NE(after, before);
  llm.release();
  other.release();
  EXPECT_EQ(raw(llm.logits()), after);
  EXPECT_EQ(llm.run_id(), name);
  llm.run_tokens(kRows);
  EXPECT_EQ(raw(llm.logits()), before);
  EXPECT_TRUE(llm.effects().empty());
}

}  // namespace
}  // namespace transparent_llm
