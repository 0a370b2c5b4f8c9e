package transparentllm

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"transparentllm.dev/go/internal/wire"
)

const errorDomain = "transparent-llm"

var classByCode = map[codes.Code]*Class{
	codes.FailedPrecondition: ErrNotRun,
	codes.InvalidArgument:    ErrInvalidRequest,
	codes.OutOfRange:         ErrIndexOutOfRange,
	codes.NotFound:           ErrNotFound,
	codes.ResourceExhausted:  ErrBusy,
	codes.Unimplemented:      ErrNotSupported,
	codes.Unavailable:        ErrUnavailable,
	codes.DeadlineExceeded:   ErrDeadline,
	codes.Canceled:           ErrCancelled,
	codes.Unauthenticated:    ErrAuth,
	codes.PermissionDenied:   ErrAuth,
}

var classByReason = map[string]*Class{
	"TOO_LONG":      ErrTooLarge,
	"TOO_LARGE":     ErrTooLarge,
	"OUT_OF_MEMORY": ErrCapacity,
	"MODEL_REFUSED": ErrModelRefused,
}

var codeNames = [...]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
	"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
	"INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

// FromError gives what a failed call means: the Error in err's chain if there is one, else one made of gRPC's status. It
// is for those who call the generated stubs themselves; every method of Client returns such errors already. The target is
// named where the server could not speak for itself. FromError of nil is a nil *Error, which as an error is not nil: test
// err before.
func FromError(err error, target string) *Error {
	var known *Error
	var stream *wire.StreamError
	var large *wire.TooLargeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return known
	case errors.As(err, &stream):
		return failure(ErrInternal, "%s broke the protocol: %s", target, stream.What)
	case errors.As(err, &large):
		return tooLarge(large)
	case errors.Is(err, context.Canceled):
		made := failure(ErrCancelled, "the call to %s was cancelled", target)
		made.cause = err
		return made
	case errors.Is(err, context.DeadlineExceeded):
		made := failure(ErrDeadline, "%s did not answer within the time allowed", target)
		made.cause = err
		return made
	}
	return fromStatus(status.Convert(err), err, target)
}

func tooLarge(large *wire.TooLargeError) *Error {
	return failure(ErrTooLarge, "%s", large.Error()).because("TOO_LARGE",
		"needed", strconv.FormatUint(large.Needed, 10), "allowed", strconv.FormatUint(large.Allowed, 10))
}

func fromStatus(st *status.Status, cause error, target string) *Error {
	if rich := fromDetails(st); rich != nil {
		rich.cause = cause
		return rich
	}
	code, said := st.Code(), legible(st.Message(), mostMessage)
	if code == codes.ResourceExhausted &&
		(strings.Contains(said, "larger than max") || strings.Contains(said, "metadata size exceeds")) {
		made := failure(ErrTooLarge, "a message was too large for %s: %s; send less at once", target, said)
		made.cause = cause
		return made
	}
	class := classOf(code)
	if wasReset(code, said) {
		class = ErrUnavailable
	}
	made := failure(class, "%s", plainMessage(code, said, target)).because(class.reason,
		"status", codeName(code), "target", target)
	made.cause = cause
	return made
}

// fromDetails is nil if the status has no ErrorInfo of ours.
func fromDetails(st *status.Status) *Error {
	var info *errdetails.ErrorInfo
	var retryAfter *time.Duration
	for _, detail := range st.Details() {
		switch held := detail.(type) {
		case *errdetails.ErrorInfo:
			if held.Domain == errorDomain {
				info = held
			}
		case *errdetails.RetryInfo:
			retryAfter = delayOf(held)
		}
	}
	if info == nil {
		return nil
	}
	class, ok := classByReason[info.Reason]
	if !ok {
		class = classOf(st.Code())
	}
	reason := info.Reason
	if !isReason(reason) {
		reason = class.reason
	}
	return &Error{Class: class, Reason: reason, Message: legible(st.Message(), mostMessage), Metadata: legibleMetadata(info.Metadata),
		retryAfter: retryAfter}
}

// delayOf is nil for a delay that nobody should wait for: below 0, or longer than a day.
func delayOf(retry *errdetails.RetryInfo) *time.Duration {
	if retry.RetryDelay != nil && !retry.RetryDelay.IsValid() {
		return nil
	}
	delay := retry.RetryDelay.AsDuration()
	if delay < 0 || delay > longestDelay {
		return nil
	}
	return &delay
}

func classOf(code codes.Code) *Class {
	if class, ok := classByCode[code]; ok {
		return class
	}
	return ErrInternal
}

// wasReset tells whether a proxy broke the stream off because it lost the server behind it. Of one that ends within a
// message gRPC says only this.
func wasReset(code codes.Code, said string) bool {
	return code == codes.Internal && (strings.Contains(said, "RST_STREAM") || said == io.ErrUnexpectedEOF.Error())
}

func codeName(code codes.Code) string {
	if uint32(code) < uint32(len(codeNames)) {
		return codeNames[code]
	}
	return strconv.Itoa(int(code))
}

func plainMessage(code codes.Code, said, target string) string {
	switch {
	case wasReset(code, said):
		return target + " broke off the call (" + said + "); has a proxy lost the server behind it?"
	case code == codes.Unavailable && strings.Contains(said, "x509:"):
		return "no connection to " + target + ": its certificate was not accepted (" + said + ")"
	case code == codes.Unavailable:
		return "no server answers at " + target + " (" + said + "); is it running, is the address right, and do both " +
			"sides use TLS?"
	case code == codes.DeadlineExceeded:
		return target + " did not answer within the time allowed (" + said + "); raise the timeout if the work is long"
	case code == codes.Unimplemented:
		return "the server at " + target + " does not know this method (" + said + "); is it older than this client?"
	}
	return codeName(code) + " from " + target + ": " + said
}
