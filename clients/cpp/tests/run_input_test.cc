#include "run_input.h"

#include <gtest/gtest.h>

#include "transparent_llm/errors.h"

namespace transparent_llm::internal {
namespace {

std::string key(const std::string& model, const std::vector<std::string>& sentences) {
  return run_key(sentences_request(model, sentences));
}

TEST(RunInputTest, TheKeyIsThatOfModelAndInput) {
  const std::string one = key("demo", {"My lord"});
  EXPECT_EQ(one, key("demo", {"My lord"}));
  EXPECT_NE(one, key("other", {"My lord"}));
  EXPECT_NE(one, key("demo", {"My lord "}));
  EXPECT_NE(key("", {"ab", "c"}), key("", {"a", "bc"}));
  EXPECT_NE(key("", {}), run_key(tokens_request("", {})));
  EXPECT_NE(run_key(tokens_request("", {{1, 2}, {3}})), run_key(tokens_request("", {{1}, {2, 3}})));
}

TEST(RunInputTest, RefusesTextThatIsNotUtf8) {
  const auto refuses = [](const std::string& text) {
    try {
      sentences_request("", {"fine", text});
      ADD_FAILURE() << text;
    } catch (const InvalidRequestError& error) {
      EXPECT_EQ(error.metadata().at("sentence"), "1");
    }
  };
  refuses("\xff");
  refuses("a\xc3");             // cut off
  refuses("\xc0\xaf");          // overlong
  refuses("\xe0\x80\xaf");      // overlong
  refuses("\xed\xa0\x80");      // a surrogate
  refuses("\xf4\x90\x80\x80");  // past U+10FFFF
  refuses("\x80");              // no beginning
  EXPECT_NO_THROW(
      sentences_request("", {"", "\u00e4\u20ac\U0001f600\u007f", std::string("a\0b", 3)}));
}

TEST(RunInputTest, RefusesTokensThatNoVocabularyHas) {
  EXPECT_THROW(tokens_request("", {{-1}}), InvalidRequestError);
  EXPECT_THROW(tokens_request("", {{Index{1} << 31}}), InvalidRequestError);
  EXPECT_EQ(tokens_request("", {{7, 8}}).tokens().sequences(0).token_ids(1), 8);
}

}  // namespace
}  // namespace transparent_llm::internal
