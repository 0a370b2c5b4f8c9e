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

TEST(RunInputTest, TheKeyIsThatOfEveryLanguage) {
  EXPECT_EQ(key("", {"My lord, the king of France is dead"}), "e0ecca658ae862b5f227d59699dd1529");
  EXPECT_EQ(key("demo", {"My lord"}), "772583d45b6fbfa9c9c1fff0c085c2da");
  EXPECT_EQ(key("", {"\u00c4 \U0001d54f \"\\\n", ""}), "7d4c8dec3527b914ef839ef8df9ef0a3");
  EXPECT_EQ(run_key(tokens_request("demo", {{0, 1023, 2147483647}, {}})),
            "128e08778faa0cd0736b3b391424f3ac");
  EXPECT_EQ(run_key(tokens_request("\u00fc", {})), "fe5a0e475e182f6350c5bfddc7a45d4e");
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
  refuses("a\xc3");             // truncated
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
