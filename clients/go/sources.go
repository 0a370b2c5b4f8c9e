package transparentllm

import "context"

// sources are the runs of other clients that a request takes from, each as it was when it was first asked for.
type sources struct {
	of   map[*Client]*run
	runs []*run
}

// id names the run of a source.
func (s *sources) id(source *Client) (string, error) {
	if source == nil {
		return "", failure(ErrInvalidRequest, "what values are taken from is a client of the same server with a current run, got nil")
	}
	if held := s.of[source]; held != nil {
		return held.id, nil
	}
	held, err := source.current()
	if err != nil {
		return "", failure(ErrNotRun, "a client that values are taken from has run nothing yet: call its Run first")
	}
	if s.of == nil {
		s.of = map[*Client]*run{}
	}
	s.of[source], s.runs = held, append(s.runs, held)
	return held.id, nil
}

// require refuses a server that does not know a feature, and would do something else or nothing.
func (s *shared) require(ctx context.Context, feature string) error {
	offered, err := s.offers(ctx, feature)
	if err == nil && !offered {
		return failure(ErrNotSupported, "this server knows no %s; its version is too old", feature).because("NOT_SUPPORTED",
			"feature", feature)
	}
	return err
}

// lostSource is the source that a run failed for want of; nil if it failed for another reason.
func (c *Client) lostSource(err error, from []*run) *run {
	if !c.mayRerun(err) {
		return nil
	}
	missing := err.(*Error).Metadata["run_id"]
	for _, source := range from {
		if source.id == missing {
			return source
		}
	}
	return nil
}

// bringing asks where a routing key leads; runs that it takes from are run again there if they are not there, each once.
func (c *Client) bringing(ctx context.Context, from []*run, key string, ask func() error) error {
	for made := map[*run]bool{}; ; {
		err := ask()
		if err == nil {
			return nil
		}
		lost := c.lostSource(err, from)
		if lost == nil || made[lost] {
			return err
		}
		made[lost] = true
		if _, err := c.makeRun(ctx, lost.request, lost.sources, key); err != nil {
			return err
		}
	}
}
