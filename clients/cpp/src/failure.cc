#include "failure.h"

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "legible.h"
#include "transparent_llm/client/status.pb.h"

namespace transparent_llm::internal {
namespace {

constexpr std::string_view kDomain = "transparent-llm";

struct CodeRow {
  grpc::StatusCode code;
  std::string_view name;
  ErrorClass kind;
  std::string_view reason;  // of an error without details
};

constexpr std::array kCodes = {
    CodeRow{grpc::CANCELLED, "CANCELLED", ErrorClass::kCancelled, "CANCELLED"},
    CodeRow{grpc::UNKNOWN, "UNKNOWN", ErrorClass::kInternal, "INTERNAL"},
    CodeRow{grpc::INVALID_ARGUMENT, "INVALID_ARGUMENT", ErrorClass::kInvalidRequest,
            "INVALID_REQUEST"},
    CodeRow{grpc::DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", ErrorClass::kDeadline,
            "DEADLINE_EXCEEDED"},
    CodeRow{grpc::NOT_FOUND, "NOT_FOUND", ErrorClass::kNotFound, "NOT_FOUND"},
    CodeRow{grpc::ALREADY_EXISTS, "ALREADY_EXISTS", ErrorClass::kInternal, "INTERNAL"},
    CodeRow{grpc::PERMISSION_DENIED, "PERMISSION_DENIED", ErrorClass::kAuth, "UNAUTHENTICATED"},
    CodeRow{grpc::RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED", ErrorClass::kBusy, "BUSY"},
    CodeRow{grpc::FAILED_PRECONDITION, "FAILED_PRECONDITION", ErrorClass::kNotRun, "NOT_RUN"},
    CodeRow{grpc::ABORTED, "ABORTED", ErrorClass::kInternal, "INTERNAL"},
    CodeRow{grpc::OUT_OF_RANGE, "OUT_OF_RANGE", ErrorClass::kIndexOutOfRange, "INDEX_OUT_OF_RANGE"},
    CodeRow{grpc::UNIMPLEMENTED, "UNIMPLEMENTED", ErrorClass::kNotSupported, "NOT_SUPPORTED"},
    CodeRow{grpc::INTERNAL, "INTERNAL", ErrorClass::kInternal, "INTERNAL"},
    CodeRow{grpc::UNAVAILABLE, "UNAVAILABLE", ErrorClass::kUnavailable, "UNAVAILABLE"},
    CodeRow{grpc::DATA_LOSS, "DATA_LOSS", ErrorClass::kInternal, "INTERNAL"},
    CodeRow{grpc::UNAUTHENTICATED, "UNAUTHENTICATED", ErrorClass::kAuth, "UNAUTHENTICATED"},
};

const CodeRow& row_of(grpc::StatusCode code) {
  for (const CodeRow& row : kCodes) {
    if (row.code == code) return row;
  }
  return kCodes[1];  // a code that gRPC does not have is UNKNOWN
}

/// What gRPC says of a handshake, with BoringSSL or OpenSSL, and what that means for the user.
constexpr std::array kTlsFailures = {
    std::pair<std::string_view, std::string_view>{
        "certificate has expired", "its certificate was not accepted, as it has expired"},
    std::pair<std::string_view, std::string_view>{
        "certificate is not yet valid",
        "its certificate was not accepted, as it is not yet valid; is this machine's clock right?"},
    std::pair<std::string_view, std::string_view>{
        "CERTIFICATE_VERIFY_FAILED",
        "its certificate was not accepted: no authority in tls_ca has signed it"},
    std::pair<std::string_view, std::string_view>{
        "certificate verify failed",
        "its certificate was not accepted: no authority in tls_ca has signed it, or it is not valid "
        "now"},
    std::pair<std::string_view, std::string_view>{
        "Hostname Verification Check failed",
        "its certificate was not accepted: it was issued for a name other than the target's"},
    std::pair<std::string_view, std::string_view>{
        "is not in peer certificate",
        "its certificate was not accepted: it was issued for a name other than the target's"},
    std::pair<std::string_view, std::string_view>{
        "WRONG_VERSION_NUMBER", "it does not speak TLS; leave out tls_ca, or turn on TLS there"},
    std::pair<std::string_view, std::string_view>{
        "wrong version number", "it does not speak TLS; leave out tls_ca, or turn on TLS there"},
};

bool says(const std::string& text, std::string_view words) {
  return text.find(words) != std::string::npos;
}

/// What gRPC says of a stream that a proxy broke off because it lost the server behind it.
bool was_reset(const grpc::Status& status) {
  return status.error_code() == grpc::INTERNAL && says(status.error_message(), "RST_STREAM");
}

/// What gRPC says, as UNIMPLEMENTED, of an answer that cannot be parsed.
bool was_unreadable(const grpc::Status& status) {
  return status.error_code() == grpc::UNIMPLEMENTED &&
         says(status.error_message(), "No message returned for unary request");
}

/// Whether the server, or what is there, ended the connection before it could be used.
bool was_shut(const std::string& said) {
  return says(said, "failed to connect") &&
         (says(said, "Socket closed") || says(said, "Connection reset") ||
          says(said, "Broken pipe"));
}

std::string plain_message(const grpc::Status& status, const std::string& target) {
  const std::string& said = status.error_message();
  if (was_reset(status)) {
    return target + " broke off the call (" + said + "); has a proxy lost the server behind it?";
  }
  switch (status.error_code()) {
    case grpc::UNAVAILABLE:
      for (const auto& [words, meaning] : kTlsFailures) {
        if (says(said, words))
          return "no connection to " + target + ": " + std::string(meaning) + " (" + said + ")";
      }
      if (was_shut(said)) {
        return "no connection to " + target + ": it closed the connection at once; is it up, and " +
               "does it require TLS (tls_ca) or another client certificate (tls_cert, tls_key)? (" +
               said + ")";
      }
      return "no server answers at " + target + " (" + said +
             "); is it running, and is the address right?";
    case grpc::DEADLINE_EXCEEDED:
      return target + " did not answer within the time allowed (" + said +
             "); raise the timeout if the work is long";
    case grpc::UNIMPLEMENTED:
      return "the server at " + target + " does not know this method (" + said +
             "); is it older than this client?";
    default:
      return std::string(row_of(status.error_code()).name) + " from " + target + ": " + said;
  }
}

Failure without_details(const grpc::Status& status, const std::string& target) {
  const CodeRow& row = row_of(status.error_code());
  const std::string& said = status.error_message();
  if (row.code == grpc::RESOURCE_EXHAUSTED &&
      (says(said, "larger than max") || says(said, "metadata size exceeds"))) {
    return {ErrorClass::kTooLarge,
            "a message was too large for " + target + ": " + said + "; send less at once",
            {.reason = "TOO_LARGE", .metadata = {}, .retry_after = {}}};
  }
  if (was_unreadable(status)) {
    return {ErrorClass::kInternal,
            target + " broke the protocol: its answer cannot be read",
            {.reason = "INTERNAL", .metadata = {{"target", target}}, .retry_after = {}}};
  }
  const bool reset = was_reset(status);
  return {reset ? ErrorClass::kUnavailable : row.kind,
          plain_message(status, target),
          {.reason = reset ? "UNAVAILABLE" : std::string(row.reason),
           .metadata = {{"status", std::string(row.name)}, {"target", target}},
           .retry_after = {}}};
}

std::optional<ErrorClass> class_of_reason(const std::string& reason) {
  if (reason == "TOO_LONG" || reason == "TOO_LARGE") return ErrorClass::kTooLarge;
  if (reason == "OUT_OF_MEMORY") return ErrorClass::kCapacity;
  if (reason == "MODEL_REFUSED") return ErrorClass::kModelRefused;
  return std::nullopt;
}

bool is_type(const client::Detail& detail, std::string_view type) {
  const std::string& url = detail.type_url();
  return url.size() > type.size() && url.ends_with(type) &&
         url[url.size() - type.size() - 1] == '/';
}

/// None for a delay that nobody should wait for: below 0, or longer than a day.
std::optional<Seconds> seconds_of(const client::Duration& delay) {
  constexpr std::int64_t kDay = 24 * 3600;
  if (delay.seconds() < 0 || delay.seconds() > kDay) return std::nullopt;
  if (delay.nanos() < 0 || delay.nanos() > 999'999'999) return std::nullopt;
  const Seconds made = std::chrono::milliseconds(delay.nanos() / 1'000'000) +
                       Seconds(static_cast<double>(delay.seconds()));
  return made <= Seconds(kDay) ? std::optional(made) : std::nullopt;
}

/// What the server said, if its details can be read and are ours.
std::optional<Failure> with_details(const grpc::Status& status) {
  client::Status rich;
  if (status.error_details().empty() || !rich.ParseFromString(status.error_details()))
    return std::nullopt;
  client::ErrorInfo info;
  ErrorDetails details;
  bool is_ours = false;
  for (const client::Detail& detail : rich.details()) {
    if (is_type(detail, "google.rpc.ErrorInfo")) {
      if (!info.ParseFromString(detail.value())) return std::nullopt;
      is_ours = is_ours || info.domain() == kDomain;
    } else if (is_type(detail, "google.rpc.RetryInfo")) {
      client::RetryInfo retry;
      if (!retry.ParseFromString(detail.value())) return std::nullopt;
      details.retry_after = seconds_of(retry.retry_delay());
    }
  }
  if (!is_ours) return std::nullopt;
  const CodeRow& row = row_of(status.error_code());
  details.reason = is_reason(info.reason()) ? info.reason() : std::string(row.reason);
  details.metadata = legible(std::map<std::string, std::string>(info.metadata().begin(),
                                                                info.metadata().end()));
  return Failure{class_of_reason(info.reason()).value_or(row.kind),
                 legible(rich.message(), kMostMessage), std::move(details)};
}

}  // namespace

Failure failure_of(const grpc::Status& status, const std::string& target) {
  if (auto failure = with_details(status)) return *std::move(failure);
  return without_details({status.error_code(), legible(status.error_message(), kMostMessage)},
                         target);
}

void Failure::raise() const {
  switch (kind) {
    case ErrorClass::kNotRun:
      throw NotRunError(message, details);
    case ErrorClass::kInvalidRequest:
      throw InvalidRequestError(message, details);
    case ErrorClass::kTooLarge:
      throw TooLargeError(message, details);
    case ErrorClass::kIndexOutOfRange:
      throw IndexOutOfRangeError(message, details);
    case ErrorClass::kNotFound:
      throw NotFoundError(message, details);
    case ErrorClass::kBusy:
      throw BusyError(message, details);
    case ErrorClass::kCapacity:
      throw CapacityError(message, details);
    case ErrorClass::kNotSupported:
      throw NotSupportedError(message, details);
    case ErrorClass::kUnavailable:
      throw UnavailableError(message, details);
    case ErrorClass::kDeadline:
      throw DeadlineError(message, details);
    case ErrorClass::kCancelled:
      throw CancelledError(message, details);
    case ErrorClass::kAuth:
      throw AuthError(message, details);
    case ErrorClass::kModelRefused:
      throw ModelRefusedError(message, details);
    case ErrorClass::kInternal:
      break;
  }
  throw InternalError(message, details);
}

}  // namespace transparent_llm::internal
