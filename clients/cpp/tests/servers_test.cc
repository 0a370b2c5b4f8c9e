// Several servers of one client.

#include "servers.h"

#include <gtest/gtest.h>

#include <map>

#include "real_server.h"
#include "transparent_llm/client.h"
#include "transparent_llm/errors.h"

namespace transparent_llm {
namespace {

TEST(SeveralServersTest, EachKeyHasOneAndAnotherServerMovesOnlyItsOwn) {
  const auto two = internal::servers_of({"a:1", "b:1"}, {});
  const auto three = internal::servers_of({"a:1", "b:1", "c:1"}, {});
  std::map<std::string, int> counts;
  for (int i = 0; i < 3000; ++i) {
    const std::string key = "key " + std::to_string(i);
    const std::string before = internal::server_for(two, key)->target();
    const std::string after = internal::server_for(three, key)->target();
    EXPECT_EQ(internal::server_for(two, key)->target(), before);
    EXPECT_TRUE(after == before || after == "c:1") << key;
    ++counts[after];
  }
  for (const auto& [target, count] : counts) EXPECT_NEAR(count, 1000, 150) << target;
  EXPECT_EQ(counts.size(), 3u);
}

TEST(SeveralServersTest, OneThatIsNotThereIsPassedOver) {
  Client llm = Client::connect_all({"127.0.0.1:1", test::real_server()});
  for (Index token = 1; token < 9; ++token) {
    llm.run_tokens({{token, token + 1}});
    EXPECT_EQ(llm.residual_in(0).shape()[1], 2u);
  }
}

TEST(SeveralServersTest, ThoseThatAreAllGoneAreNamed) {
  Client llm = Client::connect_all({"127.0.0.1:1", "127.0.0.2:1"}, {.reconnect = {}});
  try {
    llm.run({"My lord"});
    FAIL();
  } catch (const UnavailableError& error) {
    EXPECT_NE(std::string(error.what()).find(":1"), std::string::npos) << error.what();
  }
}

TEST(SeveralServersTest, TargetsAreSomeAndDifferent) {
  EXPECT_THROW(Client::connect_all({}), InvalidRequestError);
  EXPECT_THROW(Client::connect_all({"a", "a:50051"}), InvalidRequestError);
  EXPECT_THROW(Client::connect_all(std::vector<std::string>(1025, "a")), InvalidRequestError);
}

}  // namespace
}  // namespace transparent_llm
