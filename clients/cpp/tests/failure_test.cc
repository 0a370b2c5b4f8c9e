#include "failure.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "transparent_llm/client/status.pb.h"
#include "wire.h"

namespace transparent_llm::internal {
namespace {

using test::status_of;

TEST(FailureTest, ServersWordsComeWhole) {
  const Failure failure = failure_of(
      status_of(grpc::OUT_OF_RANGE, "INDEX_OUT_OF_RANGE", {{"axis", "layer"}, {"size", "4"}}, 1500),
      "target");
  try {
    failure.raise();
  } catch (const IndexOutOfRangeError& error) {
    EXPECT_STREQ(error.what(), "the server's words");
    EXPECT_EQ(error.reason(), "INDEX_OUT_OF_RANGE");
    EXPECT_EQ(error.metadata().at("size"), "4");
    EXPECT_EQ(error.retry_after(), Seconds(1.5));
    return;
  }
  FAIL();
}

TEST(FailureTest, SpecialReasonsHaveClassesOfTheirOwn) {
  EXPECT_EQ(failure_of(status_of(grpc::INVALID_ARGUMENT, "TOO_LONG"), "t").kind,
            ErrorClass::kTooLarge);
  EXPECT_EQ(failure_of(status_of(grpc::RESOURCE_EXHAUSTED, "OUT_OF_MEMORY"), "t").kind,
            ErrorClass::kCapacity);
  EXPECT_EQ(failure_of(status_of(grpc::FAILED_PRECONDITION, "MODEL_REFUSED"), "t").kind,
            ErrorClass::kModelRefused);
  EXPECT_EQ(failure_of(status_of(grpc::RESOURCE_EXHAUSTED, "BUSY"), "t").kind, ErrorClass::kBusy);
  EXPECT_EQ(failure_of(status_of(grpc::PERMISSION_DENIED, "PERMISSION_DENIED"), "t").kind,
            ErrorClass::kAuth);
}

TEST(FailureTest, WithoutDetailsTheStatusTells) {
  const Failure failure = failure_of({grpc::UNIMPLEMENTED, "no such method"}, "host:1");
  EXPECT_EQ(failure.kind, ErrorClass::kNotSupported);
  EXPECT_EQ(failure.details.reason, "NOT_SUPPORTED");
  EXPECT_EQ(failure.details.metadata, (std::map<std::string, std::string>{
                                          {"status", "UNIMPLEMENTED"}, {"target", "host:1"}}));
  EXPECT_EQ(failure_of({grpc::UNKNOWN, ""}, "t").kind, ErrorClass::kInternal);
  EXPECT_EQ(failure_of({static_cast<grpc::StatusCode>(20), ""}, "t").kind, ErrorClass::kInternal);
}

TEST(FailureTest, DetailsThatAreNotOursOrBrokenAreNotTaken) {
  grpc::Status broken(grpc::NOT_FOUND, "plain", "\xff\xff\xff");
  EXPECT_EQ(failure_of(broken, "t").details.metadata.at("status"), "NOT_FOUND");
  std::string foreign = status_of(grpc::NOT_FOUND, "RUN_NOT_FOUND").error_details();
  foreign.replace(foreign.find("transparent-llm"), 15, "transparent-foo");
  EXPECT_EQ(failure_of({grpc::NOT_FOUND, "plain", foreign}, "t").details.reason, "NOT_FOUND");
}

TEST(FailureTest, DelaysThatNobodyShouldWaitForAreNone) {
  for (const auto& [seconds, nanos] : std::vector<std::pair<std::int64_t, std::int32_t>>{
           {-1, 0}, {0, -1}, {INT64_MAX, INT32_MAX}, {INT64_MIN, 0}, {86'401, 0}, {1, INT32_MIN}}) {
    client::Status status;
    status.ParseFromString(status_of(grpc::UNAVAILABLE, "BUSY", {}, 1).error_details());
    client::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(seconds);
    retry.mutable_retry_delay()->set_nanos(nanos);
    status.mutable_details(1)->set_value(retry.SerializeAsString());
    const Failure failure =
        failure_of({grpc::UNAVAILABLE, "", status.SerializeAsString()}, "target");
    EXPECT_EQ(failure.details.reason, "BUSY");
    EXPECT_FALSE(failure.details.retry_after) << seconds;
  }
}

TEST(FailureTest, WordsAreTakenWithinBounds) {
  std::string said;
  for (int i = 0; i < 1 << 16; ++i) said += "\x1b[2J\u202e";
  std::map<std::string, std::string> metadata = {
      {"\x1b[2J", "\x07"}, {std::string(100, 'k'), "v"}, {"long", std::string(1 << 20, 'v')}};
  for (int i = 0; i < 100; ++i) metadata["k" + std::to_string(i)] = "v";
  for (const grpc::Status& status :
       {status_of(grpc::UNAVAILABLE, said, metadata), grpc::Status(grpc::UNAVAILABLE, said),
        grpc::Status(grpc::UNAVAILABLE, "no UTF-8: \xff\xc0\xed\xa0\x80")}) {
    const Failure failure = failure_of(status, "target");
    std::string words = failure.message + failure.details.reason;
    for (const auto& [key, value] : failure.details.metadata) words += key + value;
    EXPECT_LT(words.size(), std::size_t{1} << 16);
    EXPECT_EQ(words.find_first_of("\x1b\x07\xff"), std::string::npos);
    EXPECT_EQ(words.find("\u202e"), std::string::npos);
    EXPECT_LE(failure.details.metadata.size(), 32u);
  }
}

TEST(FailureTest, AResetStreamIsALostConnection) {
  const Failure failure =
      failure_of({grpc::INTERNAL, "Received RST_STREAM with error code 2"}, "t");
  EXPECT_EQ(failure.kind, ErrorClass::kUnavailable);
  EXPECT_EQ(failure.details.reason, "UNAVAILABLE");
  EXPECT_EQ(failure.details.metadata.at("status"), "INTERNAL");
}

TEST(FailureTest, AFailedHandshakeIsExplained) {
  const std::string opening = "failed to connect to all addresses; last error: UNKNOWN: ipv4:";
  const std::map<std::string, std::string> meanings = {
      {"Ssl handshake failed: SSL_ERROR_SSL: error:0A000086:SSL routines::certificate verify failed",
       "its certificate was not accepted: no authority"},
      {"Ssl handshake failed: SSL_ERROR_SSL: error:0A00010B:SSL routines::wrong version number",
       "it does not speak TLS"},
      {"Peer name 127.0.0.1 is not in peer certificate", "it was issued for a name other"},
      {"Socket closed", "does it require TLS"},
      {"Connection refused", "is it running"},
  };
  for (const auto& [said, meaning] : meanings) {
    const Failure failure = failure_of({grpc::UNAVAILABLE, opening + said}, "host:1");
    EXPECT_NE(failure.message.find(meaning), std::string::npos) << failure.message;
    EXPECT_EQ(failure.kind, ErrorClass::kUnavailable);
  }
}

TEST(FailureTest, AMessageThatIsTooLargeIsSo) {
  EXPECT_EQ(
      failure_of({grpc::RESOURCE_EXHAUSTED, "Sent message larger than max (20 vs. 10)"}, "t").kind,
      ErrorClass::kTooLarge);
}

TEST(ErrorTest, ClassesHaveDefaultReasons) {
  EXPECT_EQ(NotRunError("x").reason(), "NOT_RUN");
  EXPECT_EQ(CapacityError("x").reason(), "OUT_OF_MEMORY");
  EXPECT_EQ(TooLargeError("x").reason(), "TOO_LARGE");
  EXPECT_EQ(BusyError("x", {.reason = "SPECIAL", .metadata = {}, .retry_after = {}}).reason(),
            "SPECIAL");
}

}  // namespace
}  // namespace transparent_llm::internal
