package transparentllm

import (
	"context"

	pb "transparentllm.dev/go/transparent_llm/v1"
)

func (c *Client) begin(ctx context.Context, request *pb.RunRequest, options []RunOption) (err error) {
	var asked runOptions
	for _, option := range options {
		option(&asked)
	}
	var from sources
	if request.Edits, err = c.interventions(ctx, asked.edits, &from); err != nil {
		return err
	}
	return c.replace(ctx, request, from.runs, runKey(request))
}

// interventions are the messages of edits, of which there are some only where the server can make them.
func (c *Client) interventions(ctx context.Context, edits []Edit, from *sources) ([]*pb.Intervention, error) {
	made, err := interventions(edits, from)
	if err != nil || len(made) == 0 {
		return nil, err
	}
	return made, c.require(ctx, "edits")
}

// replace makes a run, which becomes the current one.
func (c *Client) replace(ctx context.Context, request *pb.RunRequest, from []*run, key string) error {
	made, err := c.makeRun(ctx, request, from, key)
	if err != nil {
		return err
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.hold(made)
	return nil
}

// hold lets a run be the current one. The caller holds the mutex.
func (c *Client) hold(made *run) {
	c.kept.hold(made)
	c.kept.leave(c.held)
	c.held = made
}

// makeRun runs a request where a routing key leads.
func (c *Client) makeRun(ctx context.Context, request *pb.RunRequest, from []*run, key string) (*run, error) {
	answer := &pb.RunResponse{}
	err := c.bringing(ctx, from, key, func() error {
		answer.Reset()
		return c.calls.unary(ctx, "Run", request, answer, key)
	})
	if err != nil {
		return nil, err
	}
	made, err := answeredRun(request, key, answer)
	if err != nil {
		return nil, err
	}
	made.sources = from
	return made, nil
}

func (c *Client) current() (*run, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.held == nil {
		return nil, failure(ErrNotRun, "nothing has been run yet: call Run first")
	}
	return c.held, nil
}

// ofRun reads from the current run, which is run again if the server has lost it.
func (c *Client) ofRun(ctx context.Context, read func(*run) error) error {
	held, err := c.current()
	if err != nil {
		return err
	}
	for reruns := 0; ; reruns++ {
		err := read(held)
		if !c.mayRerun(err) || reruns == mostReruns {
			return err
		}
		if held, err = c.runAgain(ctx, held); err != nil {
			return err
		}
	}
}

// mayRerun tells whether a read failed as the server no longer has the run, and may be made again.
func (c *Client) mayRerun(err error) bool {
	failed, ok := err.(*Error)
	return ok && failed.Class == ErrNotFound && failed.Reason == "RUN_NOT_FOUND" && c.calls.rerun
}

// runAgain makes a lost run again. It becomes the current one in place of the lost.
func (c *Client) runAgain(ctx context.Context, lost *run) (*run, error) {
	again, err := c.makeRun(ctx, lost.request, lost.sources, lost.key)
	if err != nil {
		return nil, err
	}
	if err := requireSameModel(lost.digest, again.digest, c.calls.target); err != nil {
		return nil, err
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.held == lost {
		c.hold(again)
	}
	return again, nil
}
