// Everything that this library throws on purpose.
//
//   Error (std::runtime_error)
//   +-- NotRunError            a read before `run`
//   +-- InvalidRequestError    an argument that can never be right
//   |   +-- TooLargeError      longer or larger than the model, the server or this client allows
//   +-- IndexOutOfRangeError   layer, head, neuron, position or batch index
//   +-- NotFoundError          no such model or run, or another model than before
//   +-- BusyError              no room now, try again after `retry_after()`
//   |   +-- CapacityError      the device ran out of memory
//   +-- NotSupportedError      this model or server cannot give this value
//   +-- UnavailableError       loading, draining, unreachable or lost
//   +-- DeadlineError          not done within its time
//   +-- CancelledError         the call was cancelled
//   +-- AuthError              token or certificate missing, wrong or not allowed
//   +-- ModelRefusedError      a model that failed its checks at load
//   +-- InternalError          a bug in the server; quote its incident id

#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

namespace transparent_llm {

/// Seconds, with fractions.
using Seconds = std::chrono::duration<double>;

/// What an error says besides its message.
struct ErrorDetails {
  /// A constant for programs, for example "INDEX_OUT_OF_RANGE". Empty: the default of the class.
  std::string reason;
  /// The numbers behind the message, as text.
  std::map<std::string, std::string> metadata;
  /// After how long to try again, if the server said so.
  std::optional<Seconds> retry_after;
};

/// Base of all errors of this library. `what()` is a message for people that says what to do.
class Error : public std::runtime_error {
 public:
  Error(const std::string& message, ErrorDetails details);

  /// A constant for programs: one of `ErrorReason` in errors.proto, without the
  /// prefix: "RUN_NOT_FOUND".
  const std::string& reason() const noexcept { return details_->reason; }
  /// The numbers behind the message, as text, for example {"axis": "layer", "size": "12", "got":
  /// "99"}.
  const std::map<std::string, std::string>& metadata() const noexcept { return details_->metadata; }
  /// After how long to try again, if the server said so.
  std::optional<Seconds> retry_after() const noexcept { return details_->retry_after; }

 private:
  std::shared_ptr<const ErrorDetails>
      details_;  // shared, as exceptions must be copied without throwing
};

/// A value of the current run was asked for before `run`. Reason: NOT_RUN.
class NotRunError : public Error {
 public:
  explicit NotRunError(const std::string& message, ErrorDetails details = {});
};

/// An argument that can never be right: empty sentences, a wrong shape or dtype, an unknown token.
class InvalidRequestError : public Error {
 public:
  explicit InvalidRequestError(const std::string& message, ErrorDetails details = {});
};

/// Longer than the model's context, or larger than the server, or `Options::max_bytes`, allows.
class TooLargeError : public InvalidRequestError {
 public:
  explicit TooLargeError(const std::string& message, ErrorDetails details = {});
};

/// A layer, head, neuron, position or batch index outside its axis.
class IndexOutOfRangeError : public Error {
 public:
  explicit IndexOutOfRangeError(const std::string& message, ErrorDetails details = {});
};

/// An unknown model (MODEL_NOT_FOUND), a run that the server no longer has (RUN_NOT_FOUND), or
/// another model under the name than before (MODEL_CHANGED).
class NotFoundError : public Error {
 public:
  explicit NotFoundError(const std::string& message, ErrorDetails details = {});
};

/// The server has no room or no time now; `retry_after()` says when to try again.
class BusyError : public Error {
 public:
  explicit BusyError(const std::string& message, ErrorDetails details = {});
};

/// The device ran out of memory during the call; the server goes on.
class CapacityError : public BusyError {
 public:
  explicit CapacityError(const std::string& message, ErrorDetails details = {});
};

/// The model has no such value, or the server does not know the call.
class NotSupportedError : public Error {
 public:
  explicit NotSupportedError(const std::string& message, ErrorDetails details = {});
};

/// The server is loading, draining, unreachable, or the connection was lost.
class UnavailableError : public Error {
 public:
  explicit UnavailableError(const std::string& message, ErrorDetails details = {});
};

/// The call was not done within its time.
class DeadlineError : public Error {
 public:
  explicit DeadlineError(const std::string& message, ErrorDetails details = {});
};

/// The call was cancelled, by its stop token or by `Client::close`, before it was done.
class CancelledError : public Error {
 public:
  explicit CancelledError(const std::string& message, ErrorDetails details = {});
};

/// The token or certificate is missing, wrong, or not allowed to do this.
class AuthError : public Error {
 public:
  explicit AuthError(const std::string& message, ErrorDetails details = {});
};

/// A model that failed its checks at load and is therefore not served.
class ModelRefusedError : public Error {
 public:
  explicit ModelRefusedError(const std::string& message, ErrorDetails details = {});
};

/// A bug in the server, or a server that broke the protocol. `metadata()["incident"]`, if there,
/// finds it in the server's log.
class InternalError : public Error {
 public:
  explicit InternalError(const std::string& message, ErrorDetails details = {});
};

}  // namespace transparent_llm
