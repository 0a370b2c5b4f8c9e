// Values of several tensors, as hand-made streams bring them.

#include <gtest/gtest.h>

#include <optional>

#include "reading.h"
#include "slices.h"
#include "transparent_llm/errors.h"
#include "wire.h"
#include "wire_dtype.h"

namespace transparent_llm::internal {
namespace {

const std::vector<std::string> kAxes = {"batch", "pos", "k"};

/// A method of several tensors, as one of tomorrow may be.
const Method& largest() {
  static const Method kLargest = {
      .name = "largest",
      .arguments = {},
      .dims = {},
      .dtype = std::nullopt,
      .parts = {{.name = "values", .dims = {"batch", "pos", "k"}},
                {.name = "ids", .dims = {"batch", "pos", "k"}, .dtype = Dtype::kI64},
                {.name = "rest",
                 .dims = {"batch"},
                 .dtype = Dtype::kF32,
                 .is_optional = true,
                 .is_sparse = true}},
      .weights = "",
      .of_run = true};
  return kLargest;
}

/// A whole tensor, or an interruption.
using Message = std::optional<v1::TensorChunk>;

Message part(const std::string& name, v1::Dtype dtype, const std::vector<std::uint64_t>& shape) {
  std::uint64_t n_bytes = size_of(*from_wire(dtype));
  for (const std::uint64_t length : shape) n_bytes *= length;
  return test::header({.name = name,
                       .dtype = dtype,
                       .shape = shape,
                       .dims = {kAxes.begin(), kAxes.begin() + static_cast<long>(shape.size())},
                       .total_bytes = n_bytes},
                      std::string(n_bytes, '\2'));
}

const Message kBreak = std::nullopt;
const Message kValues = part("largest.values", v1::DTYPE_F32, {1, 2, 3});  // 24 bytes
const Message kIds = part("largest.ids", v1::DTYPE_I64, {1, 2, 3});        // 48 bytes

std::vector<Parts> received(const std::vector<const Method*>& wanted,
                            const std::vector<Message>& stream,
                            std::optional<std::uint64_t> max_bytes = std::nullopt,
                            const ReadOptions& options = {}) {
  std::vector<Expectation> expectations;
  for (const Method* method : wanted)
    expectations.push_back(
        {.method = method, .options = options, .lengths = {{"batch", 1}, {"pos", 2}}});
  const Expected expected(expectations);
  Collector collector(expected.most());
  Assembler assembler(
      collector, max_bytes, [&](const TensorHeader& header) { expected.check(header); },
      [&](const TensorHeader& before, const TensorHeader& header) {
        return expected.continues(before, header);
      });
  for (const Message& message : stream) {
    if (message)
      assembler.add(*message);
    else
      assembler.resume();
  }
  assembler.finish();
  return grouped(wanted, std::move(collector).tensors());
}

TEST(PartsTest, SeveralTensorsAreOneValue) {
  const Message rest = part("largest.rest", v1::DTYPE_F32, {1}),
                less = part("largest.rest", v1::DTYPE_F32, {0});
  for (const auto& stream : {std::vector{kValues, kIds}, std::vector{kValues, kBreak, kIds},
                             std::vector{kValues, kIds, rest}, std::vector{kValues, kIds, less}}) {
    const auto values = received({&largest()}, stream);
    ASSERT_EQ(values.size(), 1u);
    EXPECT_EQ(values[0].at("values").dtype(), Dtype::kF32);
    EXPECT_EQ(values[0].at("ids").as<std::int64_t>()[5], 0x0202020202020202);
    EXPECT_EQ(values[0].contains("rest"), stream.back()->header().name() == "largest.rest");
  }
}

TEST(PartsTest, ValuesOfOneTensorAndOfSeveralComeInOneStream) {
  const Message tokens = test::header({.name = "tokens",
                                       .dtype = v1::DTYPE_I64,
                                       .shape = {1, 2},
                                       .dims = {"batch", "pos"},
                                       .total_bytes = 16},
                                      std::string(16, '\1'));
  const auto values = received({&largest(), &method_named("tokens"), &largest()},
                               {kValues, kIds, tokens, kValues, kIds});
  ASSERT_EQ(values.size(), 3u);
  EXPECT_EQ(values[0].size(), 2u);
  EXPECT_EQ(values[1].at("").shape(), (std::vector<std::size_t>{1, 2}));
  EXPECT_TRUE(values[2].contains("ids"));
}

TEST(PartsTest, RefusesPartsThatAreNotThoseOfTheValue) {
  const std::map<std::string, std::vector<Message>> streams = {
      {"one missing", {kValues}},
      {"another order", {kIds, kValues}},
      {"one twice", {kValues, kValues, kIds}},
      {"the last twice", {kValues, kIds, kIds}},
      {"a whole value", {part("largest", v1::DTYPE_F32, {1, 2, 3})}},
      {"an unknown part", {kValues, kIds, part("largest.more", v1::DTYPE_F32, {1})}},
      {"an unnamed part", {kValues, kIds, part("largest.", v1::DTYPE_F32, {1})}},
      {"another type", {kValues, part("largest.ids", v1::DTYPE_I32, {1, 2, 3})}},
      {"no floating type", {part("largest.values", v1::DTYPE_I32, {1, 2, 3}), kIds}},
      {"another length", {part("largest.values", v1::DTYPE_F32, {1, 1, 3}), kIds}},
      {"more than there is", {kValues, kIds, part("largest.rest", v1::DTYPE_F32, {2})}},
      {"a part of another value", {kValues, part("logits.ids", v1::DTYPE_I64, {1, 2, 3})}},
  };
  for (const auto& [what, stream] : streams)
    EXPECT_THROW(received({&largest()}, stream), InternalError) << what;
}

TEST(PartsTest, TheSizeOfAValueIsThatOfItsParts) {
  for (const auto& stream : {std::vector{kValues, kIds}, std::vector{kValues, kBreak, kIds}}) {
    EXPECT_EQ(received({&largest()}, stream, 72).size(), 1u);
    try {
      received({&largest()}, stream, 71);
      FAIL();
    } catch (const TooLargeError& error) {
      EXPECT_EQ(error.metadata().at("needed"), "72");
      EXPECT_EQ(error.metadata().at("allowed"), "71");
    }
  }
  const std::vector<Message> two = {kValues, kIds, kValues, kIds};
  EXPECT_EQ(received({&largest(), &largest()}, two, 72).size(), 2u);
}

TEST(PartsTest, AreCutAndCastAsAsked) {
  const ReadOptions options = {.slices = {{"pos", {.start = -1}}}, .dtype = Dtype::kBF16};
  const std::vector<Message> stream = {part("largest.values", v1::DTYPE_BF16, {1, 1, 3}),
                                       part("largest.ids", v1::DTYPE_I64, {1, 1, 3})};
  EXPECT_EQ(received({&largest()}, stream, std::nullopt, options).size(), 1u);
  EXPECT_THROW(received({&largest()}, {kValues, kIds}, std::nullopt, options), InternalError);
  const auto axes = largest().axes();
  EXPECT_EQ(std::vector<std::string>(axes.begin(), axes.end()), kAxes);
}

TEST(PartsTest, AReadOfSeveralTensorsIsRefusedWhereOneIsTaken) {
  require_one_tensor(method_named("logits"), "fetch");
  try {
    require_one_tensor(largest(), "fetch");
    FAIL();
  } catch (const InvalidRequestError& error) {
    EXPECT_NE(std::string(error.what()).find("is several: values, ids, rest; fetch_parts reads"),
              std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace transparent_llm::internal
