#include "failure.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

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
      {"Peer name 127.0.0.1 is not in peer certificate", "it was made for another name"},
      {"Socket closed", "does it want TLS"},
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
