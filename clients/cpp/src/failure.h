// A call that failed, before it is decided whether that is thrown.

#pragma once

#include <grpcpp/support/status.h>

#include <string>

#include "transparent_llm/errors.h"

namespace transparent_llm::internal {

enum class ErrorClass {
  kNotRun,
  kInvalidRequest,
  kTooLarge,
  kIndexOutOfRange,
  kNotFound,
  kBusy,
  kCapacity,
  kNotSupported,
  kUnavailable,
  kDeadline,
  kCancelled,
  kAuth,
  kModelRefused,
  kInternal,
};

struct Failure {
  ErrorClass kind = ErrorClass::kInternal;
  std::string message;
  ErrorDetails details;  // its reason is never empty

  /// Throws the error of this class.
  [[noreturn]] void raise() const;
};

/// What a failed call means: in the server's own words if it left details, else by the status code.
/// `target` is named where the server could not speak for itself.
Failure failure_of(const grpc::Status& status, const std::string& target);

}  // namespace transparent_llm::internal
