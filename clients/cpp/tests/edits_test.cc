#include "transparent_llm/edits.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "edit_parts.h"
#include "transparent_llm/client.h"
#include "transparent_llm/errors.h"

namespace transparent_llm {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
const Site kSite = Site::residual_in(1);

/// What is said of something that makes no sense.
std::string refused(const std::function<void()>& make) {
  try {
    make();
  } catch (const InvalidRequestError& error) {
    return error.what();
  }
  return "it was taken";
}

Vector literal(std::vector<float> values) { return Vector::literal(values); }

TEST(EditsTest, WhatIsNotWholeIsRefused) {
  const Vector v = literal({1, 2});
  const float single[] = {1};
  const Tensor deep(Dtype::kF32, {1, 1, 1}, {}, std::as_bytes(std::span(single)));
  const std::int64_t whole[] = {1};
  const Tensor integer(Dtype::kI64, {1}, {}, std::as_bytes(std::span(whole)));
  const std::vector<std::pair<std::string, std::function<void()>>> wrong = {
      {"neurons is empty", [] { Site::neurons(0, {}); }},
      {"positions is empty", [] { Selection::at({}); }},
      {"positions names 2 twice", [] { Selection::at({2, 1, 2}); }},
      {"rows is empty", [] { Selection::all().of_rows({}); }},
      {"rows names 0 twice", [] { Selection::all().of_rows({0, 0}); }},
      {"factor is nan", [] { Edit::scale(kSite, std::nan(""), Selection::all()); }},
      {"factor is inf", [&] { Edit::add(kSite, v, kInfinity, Selection::all()); }},
      {"factor is -inf", [&] { Edit::project(kSite, v, -kInfinity, Selection::all()); }},
      {"the first is element 1", [] { literal({1, std::nanf("")}); }},
      {"got F32 of shape [0]", [] { literal({}); }},
      {"got F32 of shape [1 1 1]", [&] { Vector::literal(deep); }},
      {"got I64 of shape [1]", [&] { Vector::literal(integer); }},
      {"clamp between 2.000000 and 1", [&] { Edit::clamp(kSite, v, 2, 1, Selection::all()); }},
      {"clamp between nan and 1",
       [&] { Edit::clamp(kSite, v, std::nan(""), 1, Selection::all()); }},
      {"sd is -1", [] { Edit::noise(kSite, -1, 0, Selection::all()); }},
      {"sd is inf", [] { Edit::noise(kSite, kInfinity, 0, Selection::all()); }},
      {"is 9 differences deep, at most 8",
       [] {
         Vector difference = Vector::unembedding(1);
         for (int i = 0; i < 9; ++i) difference = difference - Vector::unembedding(2);
       }},
  };
  for (const auto& [words, make] : wrong) {
    EXPECT_NE(refused(make).find(words), std::string::npos) << words << ": " << refused(make);
  }
  EXPECT_THROW(Site::residual_in(Index{1} << 31), IndexOutOfRangeError);
  EXPECT_THROW(Site::head(0, -(Index{1} << 31) - 1), IndexOutOfRangeError);
  EXPECT_THROW(Vector::unembedding(Index{1} << 31), IndexOutOfRangeError);
  EXPECT_THROW(Edit::zero(kSite, Selection::at({Index{1} << 40})), IndexOutOfRangeError);
}

TEST(EditsTest, ASourceHasRunSomething) {
  const Client llm = Client::connect("127.0.0.1:1");
  EXPECT_THROW(Edit::mean(kSite, llm, Selection::all()), NotRunError);
  EXPECT_THROW(Edit::patch(kSite, llm, Selection::all()), NotRunError);
  EXPECT_THROW(Vector::value_of(kSite, llm, 0, 0), NotRunError);
}

TEST(EditsTest, WhatIsSentSaysAll) {
  const auto noise =
      Edit::noise(Site::neurons(-1, {3, 5}), 0.5, -7, Selection::last()).parts().message;
  EXPECT_EQ(noise.site().kind(), v1::SITE_KIND_NEURONS);
  EXPECT_EQ(noise.site().layer(), -1);
  EXPECT_EQ(noise.site().neurons(1), 5);
  EXPECT_FALSE(noise.site().has_head());
  EXPECT_TRUE(noise.last_position());
  EXPECT_TRUE(noise.all_rows());
  EXPECT_EQ(noise.noise().seed(), -7);
  const auto clamp =
      Edit::clamp(Site::pattern(0, 0), Vector::neuron_output(1, 7) - Vector::unembedding(5), 30,
                  kInfinity, Selection::at({0, -1}).of_rows({-1}))
          .parts()
          .message;
  EXPECT_TRUE(clamp.site().has_head());
  EXPECT_EQ(clamp.chosen_positions().indices(1), -1);
  EXPECT_EQ(clamp.chosen_rows().indices(0), -1);
  EXPECT_EQ(clamp.clamp().vector().difference().minuend().neuron_output().neuron(), 7);
  EXPECT_EQ(clamp.clamp().vector().difference().subtrahend().unembedding(), 5);
  EXPECT_EQ(clamp.clamp().most(), kInfinity);
  const auto zero = Edit::zero(Site::all_neurons(0), Selection::all()).parts().message;
  EXPECT_TRUE(zero.has_scale());
  EXPECT_TRUE(zero.all_positions());
  EXPECT_EQ(zero.site().neurons_size(), 0);
}

TEST(EditsTest, ARunHasSixtyFourAtMost) {
  v1::RunRequest request;
  std::vector<Edit> edits(512, Edit::zero(kSite, Selection::all()));
  EXPECT_TRUE(internal::add_edits(*request.mutable_edits(), edits).empty());
  EXPECT_EQ(request.edits_size(), 512);
  edits.push_back(edits[0]);
  try {
    internal::add_edits(*request.mutable_edits(), edits);
    ADD_FAILURE() << "513 were taken";
  } catch (const TooLargeError& error) {
    EXPECT_EQ(error.reason(), "TOO_LONG");
    EXPECT_EQ(error.metadata().at("needed"), "513");
    EXPECT_EQ(error.metadata().at("allowed"), "512");
  }
}

TEST(EditsTest, EffectsAreOneOfEachEdit) {
  v1::RunResponse response;
  response.add_effects()->set_edit(std::string(5000, 'x'));
  EXPECT_THROW(internal::effects_of(response, 0), InternalError);
  EXPECT_THROW(internal::effects_of(response, 2), InternalError);
  EXPECT_LE(internal::effects_of(response, 1)[0].edit.size(), 1010u);
  EXPECT_EQ((EditEffect{.edit = {}, .delta_norm = 1, .norm = 2}.relative()), 0.5);
  EXPECT_EQ(EditEffect{}.relative(), 0);
  EXPECT_EQ((EditEffect{.edit = {}, .delta_norm = 1}.relative()), kInfinity);
}

}  // namespace
}  // namespace transparent_llm
