#include "transparent_llm/errors.h"

#include <utility>

namespace transparent_llm {
namespace {

ErrorDetails with_default(ErrorDetails details, const char* reason) {
  if (details.reason.empty()) details.reason = reason;
  return details;
}

}  // namespace

Error::Error(const std::string& message, ErrorDetails details)
    : std::runtime_error(message),
      details_(std::make_shared<const ErrorDetails>(with_default(std::move(details), "UNKNOWN"))) {}

NotRunError::NotRunError(const std::string& message, ErrorDetails details)
    : Error(message, with_default(std::move(details), "NOT_RUN")) {}

InvalidRequestError::InvalidRequestError(const std::string& message, ErrorDetails details)
    : Error(message, with_default(std::move(details), "INVALID_REQUEST")) {}

TooLargeError::TooLargeError(const std::string& message, ErrorDetails details)
    : InvalidRequestError(message, with_default(std::move(details), "TOO_LARGE")) {}

IndexOutOfRangeError::IndexOutOfRangeError(const std::string& message, ErrorDetails details)
    : Error(message, with_default(std::move(details), "INDEX_OUT_OF_RANGE")) {}

NotFoundError::NotFoundError(const std::string& message, ErrorDetails details)
    : Error(message, with_default(std::move(details), "NOT_FOUND")) {}

BusyError::BusyError(const std::string& message, ErrorDetails details)
    : Error(message, with_default(std::move(details), "BUSY")) {}

CapacityError::CapacityError(const std::string& message, ErrorDetails details)
    : BusyError(message, with_default(std::move(details), "OUT_OF_MEMORY")) {}

NotSupportedError::NotSupportedError(const std::string& message, ErrorDetails details)
    : Error(message, with_default(std::move(details), "NOT_SUPPORTED")) {}

UnavailableError::UnavailableError(const std::string& message, ErrorDetails details)
    : Error(message, with_default(std::move(details), "UNAVAILABLE")) {}

DeadlineError::DeadlineError(const std::string& message, ErrorDetails details)
    : Error(message, with_default(std::move(details), "DEADLINE_EXCEEDED")) {}

CancelledError::CancelledError(const std::string& message, ErrorDetails details)
    : Error(message, with_default(std::move(details), "CANCELLED")) {}

AuthError::AuthError(const std::string& message, ErrorDetails details)
    : Error(message, with_default(std::move(details), "UNAUTHENTICATED")) {}

ModelRefusedError::ModelRefusedError(const std::string& message, ErrorDetails details)
    : Error(message, with_default(std::move(details), "MODEL_REFUSED")) {}

InternalError::InternalError(const std::string& message, ErrorDetails details)
    : Error(message, with_default(std::move(details), "INTERNAL")) {}

}  // namespace transparent_llm
