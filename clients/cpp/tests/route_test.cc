#include "route.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "transparent_llm/errors.h"

namespace transparent_llm::internal {
namespace {

using Variables = std::map<std::string, std::string>;

Route routed(const std::string& target, const Options& options, const Variables& variables) {
  return route_to(target, options, [&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

struct Case {
  std::string target;
  Options options;
  Variables variables;
  std::string wanted;
};

const std::string kFar = "models.example.com:443", kNear = "127.0.0.1:50051";
const Variables kTold = {{"http_proxy", "http://p.example.com:3128"}};
const Options kSecure = {.tls_ca = "ca.pem"};

Options with(const std::string& proxy) { return {.proxy = proxy}; }

TEST(RouteTest, WhichProxyIsUsed) {
  const std::string told = "http://p.example.com:3128";
  const std::vector<Case> cases = {
      {kFar, kSecure, kTold, told},
      {kFar, {}, kTold, ""},
      {kNear, kSecure, kTold, ""},
      {"10.1.2.3:1", kSecure, kTold, ""},
      {"gpu-box:1", kSecure, kTold, ""},
      {"gpu.lan.:1", kSecure, kTold, ""},
      {"127.1:1", kSecure, kTold, ""},
      {"[::ffff:10.0.0.1]:1", kSecure, kTold, ""},
      {"[fe80::1%eth0]:1", kSecure, kTold, ""},
      {"8.8.8.8:1", kSecure, kTold, told},
      {kNear, with("environment"), kTold, told},
      {kNear, with("q.example.com"), kTold, "http://q.example.com:80"},
      {kNear, {}, {{"TRANSPARENT_LLM_PROXY", "q:8"}}, "http://q:8"},
      {kFar, kSecure, {{"TRANSPARENT_LLM_PROXY", "none"}, {"http_proxy", "p:1"}}, ""},
      {kFar, kSecure, {{"TRANSPARENT_LLM_PROXY", ""}, {"http_proxy", "p:1"}}, "http://p:1"},
      {kFar, {.tls_ca = "ca.pem", .proxy = ""}, kTold, ""},
      {kFar, kSecure, {{"https_proxy", ""}, {"http_proxy", "p:1"}}, ""},
      {kFar, kSecure, {{"HTTP_PROXY", "p:1"}}, ""},
      {kFar, kSecure, {{"HTTPS_PROXY", "p:1"}}, "http://p:1"},
      {"unix:/run/x", with("q:8"), kTold, ""},
      {kFar, kSecure, {{"http_proxy", "socks5://p:1"}}, ""},
      {"a.models.example.com:1", with("q:8"), {{"no_proxy", "x, models.Example.com"}}, ""},
      {"a.models.example.com:1", with("q:8"), {{"NO_PROXY", "*.models.example.com"}}, ""},
      {"notmodels.example.com:1", with("q:8"), {{"no_proxy", "models.example.com"}}, "http://q:8"},
      {"models.example.com:1", with("q:8"), {{"no_proxy", "models.example.com:2"}}, "http://q:8"},
      {"models.example.com:2", with("q:8"), {{"no_proxy", "models.example.com:2"}}, ""},
      {"8.8.8.8:2", with("q:8"), {{"no_proxy", "8.8.0.0/16"}}, ""},
      {"9.8.8.8:2", with("q:8"), {{"no_proxy", "8.8.0.0/16"}}, "http://q:8"},
      {"[2001:db8::1]:2", with("q:8"), {{"no_proxy", "2001:db8::1"}}, ""},
      {kFar, with("q:8"), {{"no_proxy", "*"}}, ""},
      {"dns:///" + kFar, with("q:8"), kTold, "http://q:8"},
  };
  for (const Case& one : cases) {
    EXPECT_EQ(routed(one.target, one.options, one.variables).proxy_name, one.wanted) << one.target;
  }
  EXPECT_EQ(routed(kNear, with("http://me:word@q:8"), {}).proxy, "http://me:word@q:8");
}

TEST(RouteTest, ProxiesThatCanNeverBeRight) {
  for (const std::string proxy :
       {"https://p:1", "socks5://p", "http://", "http://p:0", "http://p:99999", "http://p:x",
        "http://p:", "http://p/path", "http://p?x", "http://p q", "http://p\n",
        "http://secret:word@p:1/path", "http://secret:word@p:99999"}) {
    try {
      routed(kNear, with(proxy), {});
      ADD_FAILURE() << proxy;
    } catch (const InvalidRequestError& error) {
      EXPECT_EQ(std::string(error.what()).find("word"), std::string::npos) << error.what();
    }
    EXPECT_THROW(routed(kNear, with("environment"), {{"all_proxy", proxy}}), InvalidRequestError);
  }
  EXPECT_THROW(routed("ipv4:10.0.0.1:1,10.0.0.2:1", with("p:1"), {}), InvalidRequestError);
}

TEST(RouteTest, FailuresNameTheProxy) {
  const Failure silent{.kind = ErrorClass::kUnavailable,
                       .message = "nobody",
                       .details = {.reason = "UNAVAILABLE",
                                   .metadata = {{"target", "x through y"}},
                                   .retry_after = {}}};
  const Failure told = routed(kNear, with("http://me:word@q:8"), {}).told(silent, kNear);
  EXPECT_EQ(told.details.metadata.at("target"), kNear);
  EXPECT_EQ(told.details.metadata.at("proxy"), "http://q:8");
  const Failure hinted = routed(kNear, {}, kTold).told(silent, kNear);
  EXPECT_NE(hinted.message.find("http_proxy names a proxy, which was not used"), std::string::npos);
}

}  // namespace
}  // namespace transparent_llm::internal
