package transparentllm

import (
	"context"
	"errors"
	"testing"
	"time"
)

// over is a context whose time ends at any moment from now on.
type over struct{ context.Context }

func (over) Deadline() (time.Time, bool) { return time.Time{}, false }

func TestAPauseThatOutlastsTheCallEndsWithItsReason(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 0)
	defer cancel()
	reason := errors.New("the model is being loaded")
	if err := newRetries(&calls{}).pause(over{ctx}, time.Hour, func() error { return reason }); err != reason {
		t.Errorf("got %v", err)
	}
	ctx, cancel = context.WithCancel(context.Background())
	cancel()
	if err := newRetries(&calls{}).pause(ctx, time.Hour, func() error { return reason }); !errors.Is(err, ErrCancelled) {
		t.Errorf("when cancelled: %v", err)
	}
}
