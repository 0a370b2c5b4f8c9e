package transparentllm

import (
	"context"
	"fmt"
	"time"
)

// Class is a kind of failure, the same in the clients of all languages. It is an error itself, so that
// errors.Is(err, transparentllm.ErrNotFound) tells whether err is of the class or of one that belongs to it.
type Class struct {
	name, reason string
	of           *Class
}

// What can go wrong. ErrTooLarge is an ErrInvalidRequest too, and ErrCapacity an ErrBusy.
var (
	// ErrNotRun: a value of the current run was asked for before Run.
	ErrNotRun = &Class{name: "NotRunError", reason: "NOT_RUN"}
	// ErrInvalidRequest: an argument that can never be right: empty sentences, a wrong shape or dtype, an unknown token.
	ErrInvalidRequest = &Class{name: "InvalidRequestError", reason: "INVALID_REQUEST"}
	// ErrTooLarge: longer than the model's context, or larger than the server or this client allows.
	ErrTooLarge = &Class{name: "TooLargeError", reason: "TOO_LARGE", of: ErrInvalidRequest}
	// ErrIndexOutOfRange: a layer, head, neuron, position or batch index outside its axis.
	ErrIndexOutOfRange = &Class{name: "IndexOutOfRangeError", reason: "INDEX_OUT_OF_RANGE"}
	// ErrNotFound: an unknown model (MODEL_NOT_FOUND), a run that the server no longer has (RUN_NOT_FOUND), another
	// model under the name than before (MODEL_CHANGED).
	ErrNotFound = &Class{name: "NotFoundError", reason: "NOT_FOUND"}
	// ErrBusy: the server has no room or no time now; Error.RetryAfter says when to try again.
	ErrBusy = &Class{name: "BusyError", reason: "BUSY"}
	// ErrCapacity: the device ran out of memory during the call; the server goes on.
	ErrCapacity = &Class{name: "CapacityError", reason: "OUT_OF_MEMORY", of: ErrBusy}
	// ErrNotSupported: this model or server cannot give this value.
	ErrNotSupported = &Class{name: "NotSupportedError", reason: "NOT_SUPPORTED"}
	// ErrUnavailable: the server is loading, draining or unreachable, or the connection was lost.
	ErrUnavailable = &Class{name: "UnavailableError", reason: "UNAVAILABLE"}
	// ErrDeadline: not finished within the time of the call. errors.Is with context.DeadlineExceeded is true as well.
	ErrDeadline = &Class{name: "DeadlineError", reason: "DEADLINE_EXCEEDED"}
	// ErrCancelled: the call was cancelled. errors.Is with context.Canceled is true as well.
	ErrCancelled = &Class{name: "CancelledError", reason: "CANCELLED"}
	// ErrAuth: the token or certificate is missing, wrong, or not allowed to do this.
	ErrAuth = &Class{name: "AuthError", reason: "UNAUTHENTICATED"}
	// ErrModelRefused: a model that failed its checks at load and is therefore not served.
	ErrModelRefused = &Class{name: "ModelRefusedError", reason: "MODEL_REFUSED"}
	// ErrInternal: a bug in the server, or a stream that breaks the protocol. Metadata "incident" finds it in the
	// server's log.
	ErrInternal = &Class{name: "InternalError", reason: "INTERNAL"}
)

// Error is the name of the class, for example "NotFoundError".
func (c *Class) Error() string { return c.name }

// Error is what every failed call returns. Get at it with errors.As.
type Error struct {
	// Class is the kind of failure; errors.Is tests for it.
	Class *Class
	// Reason is a constant for programs: one of ErrorReason in errors.proto without the prefix, such as RUN_NOT_FOUND.
	Reason string
	// Message is for people and says what to do.
	Message string
	// Metadata has the numbers behind the message, as text.
	Metadata map[string]string

	retryAfter *time.Duration
	cause      error
}

// Error is the message, after the name of the class.
func (e *Error) Error() string { return e.Class.name + ": " + e.Message }

// RetryAfter is when to try again, and whether the server said so.
func (e *Error) RetryAfter() (time.Duration, bool) {
	if e.retryAfter == nil {
		return 0, false
	}
	return *e.retryAfter, true
}

// Is tells whether target is the error's class or one that this belongs to.
func (e *Error) Is(target error) bool {
	for class := e.Class; class != nil; class = class.of {
		if error(class) == target {
			return true
		}
	}
	return e.Class == ErrDeadline && target == context.DeadlineExceeded ||
		e.Class == ErrCancelled && target == context.Canceled
}

// Unwrap gives gRPC's own error, for google.golang.org/grpc/status, or the context's; nil where the client itself refused.
func (e *Error) Unwrap() error { return e.cause }

func failure(class *Class, format string, arguments ...any) *Error {
	return &Error{Class: class, Reason: class.reason, Message: fmt.Sprintf(format, arguments...)}
}

// because sets reason and metadata, given as keys and values in turn.
func (e *Error) because(reason string, metadata ...string) *Error {
	e.Reason, e.Metadata = reason, make(map[string]string, len(metadata)/2)
	for i := 0; i+1 < len(metadata); i += 2 {
		e.Metadata[metadata[i]] = metadata[i+1]
	}
	return e
}
