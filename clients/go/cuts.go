package transparentllm

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"transparentllm.dev/go/internal/wire"
)

const (
	// Of a call to a server that has never answered, without a pause: it is not waited for.
	triesUnreached = 5
	firstPause     = 50 * time.Millisecond
	longestPause   = time.Second
	// How long a call waits without progress for a server that had answered before and was lost.
	reconnectFor = 30 * time.Second
)

// passing are reasons of a server that goes or comes, or cuts off what it has not begun: where one was reached before, it
// or another one will answer.
var passing = map[string]bool{"UNAVAILABLE": true, "DRAINING": true, "LOADING": true, "CANCELLED": true}

// cuts is how often, and how long already, a call had to be made or taken up again without any progress.
type cuts struct {
	calls      *calls
	wasReached bool
	inARow     int
	since      time.Time
	last       time.Time
	loss       *Error
}

func newCuts(calls *calls) *cuts {
	return &cuts{calls: calls, wasReached: calls.answered.Load()}
}

// waitOut waits a little after a cut. It returns what cannot be mended, or could not within reconnectFor. The tracker is
// that of the stream that was cut, if it was one.
func (c *cuts) waitOut(ctx context.Context, failed *Error, stream *wire.Tracker, progressed bool) error {
	if ctx.Err() == context.Canceled || c.calls.closed.Load() {
		return failed
	}
	if delay, loads := modelDelay(failed); loads {
		return c.pause(ctx, delay, func() error { return failed })
	}
	now := time.Now()
	if progressed || c.since.IsZero() {
		c.inARow, c.since = 0, now
	}
	if !progressed {
		c.inARow++
	}
	begun := stream != nil && stream.HasBegun()
	stayedAway := func() error { return c.stayedAway(stream) }
	switch {
	case failed.Class == ErrDeadline && c.loss != nil:
		return stayedAway()
	case !c.wasReached && !begun && failed.Reason == "UNAVAILABLE" && c.inARow < triesUnreached:
		c.calls.reconnect(ctx)
		return nil
	case !c.isPassing(failed, begun) || now.Sub(c.since) > reconnectFor:
		return failed
	}
	if c.loss == nil {
		c.loss = failed
	}
	pause := pauseAfter(c.inARow)
	if c.inARow == 0 {
		pause = c.rest(now)
	}
	if err := c.pause(ctx, pause, stayedAway); err != nil {
		return err
	}
	c.calls.reconnect(ctx)
	return nil
}

// rest is the pause after some progress: none, unless the cut before was only just, as of a server that sends crumbs.
func (c *cuts) rest(now time.Time) time.Duration {
	pause := firstPause - now.Sub(c.last)
	if pause < 0 {
		pause = 0
	}
	c.last = now.Add(pause)
	return pause
}

func (c *cuts) isPassing(failed *Error, begun bool) bool {
	wasLost := passing[failed.Reason] && (c.wasReached || begun)
	wasCut := (begun || c.loss != nil) && (failed.Class == ErrUnavailable || failed.Class == ErrCancelled)
	return wasLost || wasCut
}

// pause waits, unless the time of the call does not suffice for it, or the client is closed.
func (c *cuts) pause(ctx context.Context, delay time.Duration, tooLate func() error) error {
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Add(delay).Before(deadline) {
		return tooLate()
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-c.calls.closing:
	case <-ctx.Done():
		if ctx.Err() == context.DeadlineExceeded {
			return tooLate()
		}
	}
	return c.calls.failed(ctx, context.Canceled)
}

func (c *cuts) stayedAway(stream *wire.Tracker) error {
	var received, total uint64
	if stream != nil {
		received, total = stream.Received, stream.Total
	}
	place := ""
	if total > 0 {
		place = fmt.Sprintf(" at byte %d of %d", received, total)
	}
	made := failure(ErrDeadline, "%s was lost%s and did not come back within the time of the call: %s",
		c.calls.route.peer(c.calls.target), place, c.loss.Message).because("DEADLINE_EXCEEDED",
		"received", strconv.FormatUint(received, 10), "total_bytes", strconv.FormatUint(total, 10))
	made.cause = c.loss.cause
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

// modelDelay is when to ask again for a model that is being loaded; false if it is not that, but the server that starts.
func modelDelay(failed *Error) (time.Duration, bool) {
	if _, ofModel := failed.Metadata["model"]; failed.Reason != "LOADING" || !ofModel {
		return 0, false
	}
	if delay, said := failed.RetryAfter(); said && delay > 0 {
		return delay, true
	}
	return longestPause, true
}
