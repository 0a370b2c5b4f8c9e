// That prompts and tokens go through no proxy that nobody asked for.

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "recording_proxy.h"
#include "scripted_server.h"
#include "transparent_llm/client.h"

namespace transparent_llm {
namespace {

using test::RecordingProxy;
using test::ScriptedServer;

/// Variables of the environment that name a proxy, until the end of the test.
class Everywhere {
 public:
  explicit Everywhere(const std::string& url) {
    for (const char* name : kNames) setenv(name, url.c_str(), 1);
    setenv("GRPC_ADDRESS_HTTP_PROXY_ENABLED_ADDRESSES", "127.0.0.0/8", 1);
  }
  ~Everywhere() {
    for (const char* name : kNames) unsetenv(name);
    unsetenv("GRPC_ADDRESS_HTTP_PROXY_ENABLED_ADDRESSES");
  }

 private:
  static constexpr const char* kNames[] = {"grpc_proxy",  "https_proxy", "HTTPS_PROXY",
                                           "http_proxy",  "HTTP_PROXY",  "all_proxy",
                                           "GRPC_ADDRESS_HTTP_PROXY"};
};

TEST(ProxyTest, CallsToThisHostGoThroughNone) {
  RecordingProxy proxy;
  const Everywhere everywhere(proxy.url());
  ScriptedServer server;
  Client llm = Client::connect(server.address());
  llm.run({"a secret"});
  EXPECT_TRUE(proxy.heard().empty());
}

TEST(ProxyTest, OneThatWasAskedForIsUsed) {
  RecordingProxy proxy;
  const Everywhere everywhere(proxy.url());
  ScriptedServer server;
  Client::connect(server.address(), {.proxy = "environment"}).run({"anything"});
  std::string with_user = proxy.url();
  with_user.insert(7, "me:word@");
  Client::connect(server.address(), {.proxy = with_user}).run({"anything"});
  const auto heard = proxy.heard();
  ASSERT_EQ(heard.size(), 2u);
  for (const std::string& asked : heard)
    EXPECT_TRUE(asked.starts_with("CONNECT " + server.address() + " ")) << asked;
  EXPECT_NE(heard[1].find("Basic bWU6d29yZA=="), std::string::npos) << heard[1];
}

TEST(ProxyTest, AnErrorNamesIt) {
  RecordingProxy proxy("HTTP/1.1 407 \x1b[2J\r\n\r\n");
  std::string with_user = proxy.url();
  with_user.insert(7, "me:word@");
  try {
    Client::connect("127.0.0.1:9", {.proxy = with_user}).run({"anything"});
    FAIL();
  } catch (const UnavailableError& error) {
    const std::string said = error.what();
    EXPECT_NE(said.find("127.0.0.1:9 through the proxy " + proxy.url()), std::string::npos) << said;
    EXPECT_EQ(said.find("word"), std::string::npos) << said;
    EXPECT_EQ(said.find('\x1b'), std::string::npos) << said;
    EXPECT_EQ(error.metadata().at("proxy"), proxy.url());
    EXPECT_EQ(error.metadata().at("target"), "127.0.0.1:9");
  }
}

TEST(ProxyTest, AnErrorSaysThatItWasNotUsed) {
  RecordingProxy proxy;
  const Everywhere everywhere(proxy.url());
  try {
    Client::connect("127.0.0.1:9").run({"anything"});
    FAIL();
  } catch (const UnavailableError& error) {
    const std::string said = error.what();
    EXPECT_NE(said.find("grpc_proxy names a proxy, which was not used"), std::string::npos) << said;
  }
  EXPECT_TRUE(proxy.heard().empty());
}

}  // namespace
}  // namespace transparent_llm
