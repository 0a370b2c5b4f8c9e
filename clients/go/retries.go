package transparentllm

import (
	"context"
	"crypto/rand"
	"fmt"
	"math/big"
	"strconv"
	"time"

	"transparentllm.dev/go/internal/wire"
)

const (
	// Of a call to a server that has never answered: it is not waited for, but for what a lost connection needs to be known as one.
	triesUnreached = 5
	pauseUnreached = 5 * time.Millisecond
	firstPause     = 50 * time.Millisecond
	longestPause   = time.Second
)

// passing are reasons of a server that goes or comes, or cancels what it has not begun: where one was reached before, it
// or another one will answer.
var passing = map[string]bool{"UNAVAILABLE": true, "DRAINING": true, "LOADING": true, "CANCELLED": true}

// retries is how often, and how long already, a call had to be made or taken up again without any progress.
type retries struct {
	calls      *calls
	wasReached bool
	inARow     int
	since      time.Time
	last       time.Time
	loss       *Error
}

func newRetries(calls *calls) *retries {
	return &retries{calls: calls, wasReached: calls.answered.Load()}
}

// backoff waits a little after a failure. It returns what cannot be mended, or could not within WithReconnect. The tracker is
// that of the stream that broke, if it was one.
func (r *retries) backoff(ctx context.Context, failed *Error, stream *wire.Tracker, progressed bool) error {
	if ctx.Err() == context.Canceled || r.calls.closed.Load() {
		return failed
	}
	if delay, said := toldDelay(failed); said {
		return r.pause(ctx, delay, func() error { return failed })
	}
	now := time.Now()
	if progressed || r.since.IsZero() {
		r.inARow, r.since = 0, now
	}
	if !progressed {
		r.inARow++
	}
	begun := stream != nil && stream.HasBegun()
	stayedAway := func() error { return r.stayedAway(stream) }
	switch {
	case failed.Class == ErrDeadline && r.loss != nil:
		return stayedAway()
	case !r.wasReached && !begun && failed.Reason == "UNAVAILABLE" && r.inARow < triesUnreached:
		if err := r.pause(ctx, time.Duration(r.inARow)*pauseUnreached, func() error { return failed }); err != nil {
			return err
		}
		r.calls.servers.reconnect(ctx)
		return nil
	case !r.isPassing(failed, begun) || now.Sub(r.since) > r.calls.reconnect:
		return failed
	}
	if r.loss == nil {
		r.loss = failed
	}
	pause := pauseAfter(r.inARow)
	if r.inARow == 0 {
		pause = r.rest(now)
	}
	if err := r.pause(ctx, pause, stayedAway); err != nil {
		return err
	}
	r.calls.servers.reconnect(ctx)
	return nil
}

// rest is the pause after some progress: none, unless the failure before was only just, as of a server that sends crumbs.
func (r *retries) rest(now time.Time) time.Duration {
	pause := firstPause - now.Sub(r.last)
	if pause < 0 {
		pause = 0
	}
	r.last = now.Add(pause)
	return pause
}

func (r *retries) isPassing(failed *Error, begun bool) bool {
	wasLost := passing[failed.Reason] && (r.wasReached || begun)
	wasBroken := (begun || r.loss != nil) && (failed.Class == ErrUnavailable || failed.Class == ErrCancelled)
	return wasLost || wasBroken
}

// pause waits, unless the time of the call does not suffice for it, or the client is closed.
func (r *retries) pause(ctx context.Context, delay time.Duration, tooLate func() error) error {
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Add(delay).Before(deadline) {
		return tooLate()
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-r.calls.closing:
	case <-ctx.Done():
		if ctx.Err() == context.DeadlineExceeded {
			return tooLate()
		}
	}
	return r.calls.failed(ctx, nil, context.Canceled)
}

func (r *retries) stayedAway(stream *wire.Tracker) error {
	var received, total uint64
	if stream != nil {
		received, total = stream.Received, stream.Total
	}
	place := ""
	if total > 0 {
		place = fmt.Sprintf(" at byte %d of %d", received, total)
	}
	made := failure(ErrDeadline, "%s was lost%s and did not come back within the time of the call: %s",
		r.calls.servers.peer(), place, r.loss.Message).because("DEADLINE_EXCEEDED",
		"received", strconv.FormatUint(received, 10), "total_bytes", strconv.FormatUint(total, 10))
	made.cause = r.loss.cause
	return made
}

func pauseAfter(inARow int) time.Duration {
	if inARow == 0 {
		return 0
	}
	pause := firstPause
	for ; inARow > 1 && pause < longestPause; inARow-- {
		pause *= 2
	}
	if pause > longestPause {
		return longestPause
	}
	return pause
}

// toldDelay is when to ask again for a model that is being loaded, or a server that has no room: as it says, or up to as
// long again, so that those whom it sent away do not come back together. False if it is neither, as of a server that starts.
func toldDelay(failed *Error) (time.Duration, bool) {
	_, ofModel := failed.Metadata["model"]
	isBusy := failed.Reason == "BUSY"
	if !isBusy && (failed.Reason != "LOADING" || !ofModel) {
		return 0, false
	}
	delay, said := failed.RetryAfter()
	if !said || delay <= 0 {
		delay = longestPause
	}
	if isBusy {
		if part, err := rand.Int(rand.Reader, big.NewInt(int64(delay))); err == nil {
			delay += time.Duration(part.Int64())
		}
	}
	return delay, true
}
