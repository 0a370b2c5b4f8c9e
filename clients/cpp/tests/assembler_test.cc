#include "assembler.h"

#include <gtest/gtest.h>

#include "sinks.h"
#include "wire.h"

namespace transparent_llm::internal {
namespace {

using test::bytes_header;
using test::chunk;
using test::header;

class AssemblerTest : public testing::Test {
 protected:
  std::string finished(std::size_t place = 0) {
    assembler.finish();
    const auto tensors = std::move(collector).tensors();
    const auto bytes = tensors.at(place).tensor.bytes();
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  Collector collector{2};
  Assembler assembler{collector, std::nullopt};
};

TEST_F(AssemblerTest, JoinsChunks) {
  assembler.add(bytes_header(5, "ab"));
  assembler.add(chunk(2, "cd"));
  assembler.add(chunk(4, "e"));
  EXPECT_EQ(finished(), "abcde");
}

TEST_F(AssemblerTest, TakesScalarsAndEmptyTensors) {
  assembler.add(header({.dtype = v1::DTYPE_U8, .total_bytes = 1}, "a"));
  assembler.add(header({.dtype = v1::DTYPE_F32, .shape = {0, 3}, .dims = {"pos", "d_model"}}));
  assembler.finish();
  const auto tensors = std::move(collector).tensors();
  EXPECT_TRUE(tensors[0].tensor.shape().empty());
  EXPECT_EQ(tensors[1].tensor.shape(), (std::vector<std::size_t>{0, 3}));
}

TEST_F(AssemblerTest, RefusesBrokenStreams) {
  EXPECT_THROW(assembler.finish(), StreamError);
  EXPECT_THROW(assembler.add(chunk(0, "a")), StreamError);
  assembler.add(bytes_header(4, "ab"));
  EXPECT_THROW(assembler.finish(), StreamError);
  EXPECT_THROW(assembler.add(chunk(3, "d")), StreamError);    // a gap
  EXPECT_THROW(assembler.add(chunk(1, "b")), StreamError);    // an overlap
  EXPECT_THROW(assembler.add(chunk(2, "cde")), StreamError);  // a surplus
  EXPECT_THROW(assembler.add(chunk(~std::uint64_t{0}, "c")),
               StreamError);                                  // its end is past 64 bits
  EXPECT_THROW(assembler.add(bytes_header(4)), StreamError);  // before the first is through
  EXPECT_THROW(assembler.add(bytes_header(4, "", "other")),
               StreamError);  // another etag in one stream
}

TEST_F(AssemblerTest, RefusesHeadersThatContradictThemselves) {
  const auto refuses = [&](const test::HeaderFields& fields) {
    EXPECT_THROW(assembler.add(header(fields)), StreamError);
  };
  refuses({.dtype = v1::DTYPE_UNSPECIFIED, .shape = {1}, .dims = {"pos"}, .total_bytes = 1});
  refuses({.dtype = static_cast<v1::Dtype>(99), .shape = {1}, .dims = {"pos"}, .total_bytes = 1});
  refuses({.shape = {2}, .dims = {"pos"}, .total_bytes = 1});
  refuses({.shape = {2}, .dims = {}, .total_bytes = 2});
  refuses(
      {.shape = {1u << 31, 1u << 31, 4}, .dims = {"a", "b", "c"}, .total_bytes = 0});  // 2^64 bytes
  refuses({.shape = std::vector<std::uint64_t>(9), .dims = std::vector<std::string>(9)});
  refuses({.shape = std::vector<std::uint64_t>(120'000, std::uint64_t{1} << 63),
           .dims = std::vector<std::string>(120'000)});
  refuses({.shape = {0, std::uint64_t{1} << 47, 2}, .dims = {"a", "b", "c"}, .total_bytes = 0});
  refuses({.name = std::string(4 << 20, 'x'), .total_bytes = 1});
  refuses({.shape = {1}, .dims = {std::string(4 << 20, 'x')}, .total_bytes = 1});
  refuses({.total_bytes = 1, .etag = std::string(4 << 20, 'x')});
  refuses({.shape = {0, ~std::uint64_t{0}}, .dims = {"a", "b"}, .total_bytes = 0});
  refuses({.shape = {std::uint64_t{1} << 62},
           .dims = {"a"},
           .total_bytes = std::uint64_t{1} << 62});  // no memory
}

TEST_F(AssemblerTest, WhatIsSaidOfALiarIsShort) {
  std::string long_name;
  for (int i = 0; i < 1 << 20; ++i) long_name += "\x1b[2J";
  for (const test::HeaderFields& fields : {
           test::HeaderFields{.name = long_name},
           test::HeaderFields{.shape = {1}, .dims = {long_name}},
           test::HeaderFields{.name = "\x1b[2J", .shape = {1}, .dims = {"\x07"}, .total_bytes = 2},
       }) {
    try {
      assembler.add(header(fields));
      ADD_FAILURE();
    } catch (const StreamError& error) {
      const std::string said = error.what();
      EXPECT_LT(said.size(), 1000u);
      EXPECT_EQ(said.find_first_of("\x1b\x07"), std::string::npos) << said;
    }
  }
}

TEST_F(AssemblerTest, RefusesWhatWasNotAskedForByItsHeader) {
  Assembler checked(collector, std::nullopt, [](const TensorHeader&) { throw 7; });
  EXPECT_THROW(checked.add(bytes_header(1)), int);
}

TEST_F(AssemblerTest, RefusesSharedMemoryThatWasNotOffered) {
  v1::TensorChunk message = bytes_header(1);
  message.mutable_shared()->set_size(1);
  EXPECT_THROW(assembler.add(message), StreamError);
}

TEST_F(AssemblerTest, RefusesMoreThanMaxBytesBeforeItTakesMemory) {
  Assembler limited(collector, 10);
  try {
    limited.add(bytes_header(std::uint64_t{1} << 46));
    FAIL();
  } catch (const TooLargeError& error) {
    EXPECT_EQ(error.reason(), "TOO_LARGE");
    EXPECT_EQ(error.metadata().at("allowed"), "10");
  }
}

TEST_F(AssemblerTest, GoesOnAfterAnInterruption) {
  assembler.add(bytes_header(4, "ab"));
  assembler.resume();
  EXPECT_EQ(assembler.received(), 2u);
  EXPECT_EQ(assembler.etag(), "e");
  assembler.add(header({.shape = {4}, .dims = {"pos"}, .total_bytes = 4}, "cd", 2));
  EXPECT_EQ(finished(), "abcd");
}

TEST_F(AssemblerTest, RefusesToGoOnWithAnotherTensor) {
  assembler.add(bytes_header(4, "ab"));
  assembler.resume();
  EXPECT_THROW(assembler.add(header({.shape = {4}, .dims = {"head"}, .total_bytes = 4}, "cd", 2)),
               StreamError);
  EXPECT_THROW(assembler.add(header(
                   {.name = "logits", .shape = {4}, .dims = {"pos"}, .total_bytes = 4}, "cd", 2)),
               StreamError);
  EXPECT_THROW(
      assembler.add(header({.shape = {2, 2}, .dims = {"pos", "head"}, .total_bytes = 4}, "cd", 2)),
      StreamError);
}

TEST_F(AssemblerTest, StartsOverWhenTheBitsAreNew) {
  assembler.add(bytes_header(4, "ab"));
  assembler.resume();
  assembler.add(bytes_header(4, "wxyz", "new"));
  EXPECT_EQ(assembler.received(), 4u);
  EXPECT_EQ(finished(), "wxyz");
}

TEST_F(AssemblerTest, CountsOffsetsPerTensorAndResumesOverAll) {
  assembler.add(bytes_header(2, "ab"));
  assembler.add(bytes_header(3, "c"));
  assembler.resume();
  EXPECT_EQ(assembler.received(), 3u);
  assembler.add(header({.shape = {3}, .dims = {"pos"}, .total_bytes = 3}, "de", 1));
  EXPECT_EQ(finished(1), "cde");
}

TEST_F(AssemblerTest, ATensorWithoutBytesIsSentAgain) {
  assembler.add(bytes_header(2, "ab"));
  assembler.add(bytes_header(3));
  assembler.resume();
  EXPECT_EQ(assembler.received(), 2u);
  EXPECT_EQ(assembler.total_bytes(), 2u);
  assembler.add(bytes_header(3, "cde"));
  EXPECT_EQ(finished(1), "cde");
}

TEST_F(AssemblerTest, AnInterruptionBeforeTheFirstHeaderAsksFromTheBeginning) {
  assembler.resume();
  EXPECT_EQ(assembler.received(), 0u);
  EXPECT_EQ(assembler.etag(), "");
  EXPECT_FALSE(assembler.has_begun());
  assembler.add(bytes_header(1, "a"));
  EXPECT_EQ(finished(), "a");
}

}  // namespace
}  // namespace transparent_llm::internal
