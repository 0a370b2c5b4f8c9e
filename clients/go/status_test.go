package transparentllm_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	transparentllm "transparentllm.dev/go"
)

// rich is a status as the server sends it.
func rich(t *testing.T, code codes.Code, domain, reason string, metadata map[string]string) error {
	t.Helper()
	info := &errdetails.ErrorInfo{Domain: domain, Reason: reason, Metadata: metadata}
	retry := &errdetails.RetryInfo{RetryDelay: durationpb.New(1500 * time.Millisecond)}
	made, err := status.New(code, "what the server says").WithDetails(info, retry)
	if err != nil {
		t.Fatal(err)
	}
	return made.Err()
}

func TestAStatusWithDetailsIsTakenAtItsWord(t *testing.T) {
	cause := rich(t, codes.NotFound, "transparent-llm", "RUN_NOT_FOUND", map[string]string{"run_id": "r"})
	got := transparentllm.FromError(cause, "here")
	if got.Class != transparentllm.ErrNotFound || got.Reason != "RUN_NOT_FOUND" || got.Message != "what the server says" ||
		got.Metadata["run_id"] != "r" {
		t.Errorf("got %+v", got)
	}
	if delay, said := got.RetryAfter(); !said || delay != 1500*time.Millisecond {
		t.Errorf("to try again after %v, %v", delay, said)
	}
	if status.Code(errors.Unwrap(got)) != codes.NotFound {
		t.Error("gRPC's own error is not to be had")
	}
}

func TestReasonsThatHaveAClassOfTheirOwn(t *testing.T) {
	for reason, c := range map[string]struct {
		code    codes.Code
		classes []error
	}{
		"TOO_LONG":      {codes.InvalidArgument, []error{transparentllm.ErrTooLarge, transparentllm.ErrInvalidRequest}},
		"TOO_LARGE":     {codes.InvalidArgument, []error{transparentllm.ErrTooLarge, transparentllm.ErrInvalidRequest}},
		"OUT_OF_MEMORY": {codes.ResourceExhausted, []error{transparentllm.ErrCapacity, transparentllm.ErrBusy}},
		"MODEL_REFUSED": {codes.FailedPrecondition, []error{transparentllm.ErrModelRefused}},
		"NOT_RUN":       {codes.FailedPrecondition, []error{transparentllm.ErrNotRun}},
		"BUSY":          {codes.ResourceExhausted, []error{transparentllm.ErrBusy}},
	} {
		var err error = transparentllm.FromError(rich(t, c.code, "transparent-llm", reason, nil), "here")
		for _, class := range c.classes {
			if !errors.Is(fmt.Errorf("wrapped: %w", err), class) {
				t.Errorf("%s is no %v", reason, class)
			}
		}
		if errors.Is(err, transparentllm.ErrInternal) {
			t.Errorf("%s is an InternalError too", reason)
		}
	}
	if busy := transparentllm.FromError(rich(t, codes.ResourceExhausted, "transparent-llm", "BUSY", nil), "here"); errors.Is(busy, transparentllm.ErrCapacity) {
		t.Error("BUSY is a CapacityError")
	}
}

func TestAStatusWithoutDetailsIsToldByItsCode(t *testing.T) {
	for code, c := range map[codes.Code]struct {
		class  *transparentllm.Class
		reason string
		name   string
	}{
		codes.Unavailable:      {transparentllm.ErrUnavailable, "UNAVAILABLE", "UNAVAILABLE"},
		codes.Unimplemented:    {transparentllm.ErrNotSupported, "NOT_SUPPORTED", "UNIMPLEMENTED"},
		codes.PermissionDenied: {transparentllm.ErrAuth, "UNAUTHENTICATED", "PERMISSION_DENIED"},
		codes.Unknown:          {transparentllm.ErrInternal, "INTERNAL", "UNKNOWN"},
		codes.DataLoss:         {transparentllm.ErrInternal, "INTERNAL", "DATA_LOSS"},
		codes.DeadlineExceeded: {transparentllm.ErrDeadline, "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"},
		codes.Canceled:         {transparentllm.ErrCancelled, "CANCELLED", "CANCELLED"},
	} {
		foreign := rich(t, code, "another.domain", "RUN_NOT_FOUND", nil)
		for _, cause := range []error{status.Error(code, "said"), foreign} {
			got := transparentllm.FromError(cause, "here:1")
			if got.Class != c.class || got.Reason != c.reason || got.Metadata["status"] != c.name || got.Metadata["target"] != "here:1" {
				t.Errorf("%v became %+v", code, got)
			}
			if _, said := got.RetryAfter(); said {
				t.Errorf("%v says when to try again", code)
			}
		}
	}
	reset := transparentllm.FromError(status.Error(codes.Internal, "stream terminated by RST_STREAM with error code: INTERNAL_ERROR"), "here")
	if reset.Class != transparentllm.ErrUnavailable {
		t.Errorf("a stream that was reset became %v", reset)
	}
	large := transparentllm.FromError(status.Error(codes.ResourceExhausted, "grpc: received message larger than max (9 vs. 8)"), "here")
	if large.Class != transparentllm.ErrTooLarge || large.Reason != "TOO_LARGE" {
		t.Errorf("a message that was too large became %v", large)
	}
}

func TestWhatAStatusSaysIsTakenWithinBounds(t *testing.T) {
	for _, delay := range []*durationpb.Duration{{Seconds: -1}, {Nanos: -1}, {Seconds: math.MaxInt64, Nanos: math.MaxInt32},
		{Seconds: math.MinInt64}, {Seconds: 86401}, {Seconds: 1, Nanos: math.MinInt32}} {
		made, err := status.New(codes.Unavailable, "x").WithDetails(&errdetails.ErrorInfo{Domain: "transparent-llm", Reason: "BUSY"},
			&errdetails.RetryInfo{RetryDelay: delay})
		if err != nil {
			t.Fatal(err)
		}
		if got, said := transparentllm.FromError(made.Err(), "here").RetryAfter(); said {
			t.Errorf("%v became %v", delay, got)
		}
	}
	metadata := map[string]string{"\x1b[2J": "\x1b]0;x\a", strings.Repeat("k", 100): "v", "long": strings.Repeat("v", 1<<20)}
	for i := 0; i < 100; i++ {
		metadata[fmt.Sprint(i)] = "v"
	}
	said := strings.Repeat("\x1b[2J\u202e", 1<<16)
	for _, cause := range []error{
		rich(t, codes.Unavailable, "transparent-llm", said, metadata),
		status.Error(codes.Unavailable, said),
		status.Error(codes.Code(math.MaxUint32), said),
	} {
		got := transparentllm.FromError(cause, "here")
		words := fmt.Sprint(got, got.Reason, got.Metadata)
		if strings.ContainsAny(words, "\x1b\a\u202e") || len(words) > 1<<16 || len(got.Metadata) > 32 || len(got.Reason) > 64 {
			t.Errorf("%.1000q", words)
		}
	}
	dark, err := status.New(codes.Unavailable, strings.Repeat("\x1b[2J", 1<<16)).WithDetails(&errdetails.ErrorInfo{Domain: "transparent-llm"})
	if got := transparentllm.FromError(dark.Err(), "here"); err != nil || strings.Contains(got.Message, "\x1b") || len(got.Message) > 1<<16 {
		t.Errorf("%.1000q, %v", got.Message, err)
	}
}

func TestErrorsOfContexts(t *testing.T) {
	cancelled, late := transparentllm.FromError(context.Canceled, "here"), transparentllm.FromError(context.DeadlineExceeded, "here")
	if !errors.Is(cancelled, transparentllm.ErrCancelled) || !errors.Is(cancelled, context.Canceled) {
		t.Errorf("got %v", cancelled)
	}
	if !errors.Is(late, transparentllm.ErrDeadline) || !errors.Is(late, context.DeadlineExceeded) || errors.Is(late, context.Canceled) {
		t.Errorf("got %v", late)
	}
	if errors.Unwrap(cancelled) != context.Canceled || errors.Unwrap(late) != context.DeadlineExceeded {
		t.Errorf("the causes are %v and %v", errors.Unwrap(cancelled), errors.Unwrap(late))
	}
	if transparentllm.FromError(nil, "here") != nil {
		t.Error("an error of nothing")
	}
	if again := transparentllm.FromError(fmt.Errorf("more: %w", late), "there"); again != late {
		t.Errorf("an error of ours became %v", again)
	}
}
