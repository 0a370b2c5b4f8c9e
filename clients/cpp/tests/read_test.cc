#include "transparent_llm/read.h"

#include <gtest/gtest.h>

#include "methods.h"
#include "transparent_llm/errors.h"

namespace transparent_llm {
namespace {

TEST(ReadTest, KnowsMethodsByName) {
  const Read read = Read::named(std::string("attention_output"), {0, 1, 2});
  EXPECT_EQ(read.method(), "attention_output");
  EXPECT_EQ(read.indices(), Read::attention_output(0, 1, 2).indices());
  EXPECT_THROW(Read::named("model_info", {}), InvalidRequestError);
  EXPECT_THROW(Read::named("residual_in", {}), InvalidRequestError);
  EXPECT_THROW(Read::named("logits", {1}), InvalidRequestError);
}

TEST(ReadTest, AnIndexThatIsNoInt32IsOutOfRange) {
  try {
    internal::call_of("run", {Read::residual_in(Index{1} << 40)}, {});
    FAIL();
  } catch (const IndexOutOfRangeError& error) {
    EXPECT_EQ(error.metadata().at("axis"), "layer");
    EXPECT_EQ(error.metadata().at("got"), "1099511627776");
  }
  EXPECT_NO_THROW(
      internal::call_of("run", {Read::residual_in(-1)}, {}));  // the server says what is wrong
}

}  // namespace
}  // namespace transparent_llm
