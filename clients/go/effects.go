package transparentllm

import (
	"math"

	pb "transparentllm.dev/go/transparent_llm/v1"
)

// EditEffect is what one edit of a run did. One that changed nothing is no error, and this is where it shows.
type EditEffect struct {
	// Edit is the edit in words.
	Edit string
	// Selected is the number of elements that it had before it.
	Selected uint64
	// Changed is the number of elements that are other numbers afterwards.
	Changed uint64
	// DeltaNorm is the L2 norm of all that was added.
	DeltaNorm float64
	// Norm is the L2 norm of the selected elements before.
	Norm float64
	// MaxDelta is the largest change of one element.
	MaxDelta float64
}

// Relative is the norm of the change over that of what was changed; 0 where both are 0.
func (e EditEffect) Relative() float64 {
	switch {
	case e.Norm != 0:
		return e.DeltaNorm / e.Norm
	case e.DeltaNorm != 0:
		return math.Inf(1)
	}
	return 0
}

// Effects is what each edit of the current run did, in their order. No call is made.
//
// Errors: ErrNotRun.
func (c *Client) Effects() ([]EditEffect, error) {
	held, err := c.current()
	if err != nil {
		return nil, err
	}
	return append([]EditEffect{}, held.effects...), nil
}

// mostWords of an edit, in characters.
const mostWords = 1000

// effectsOf refuses more or fewer than the edits that were sent.
func effectsOf(answer *pb.RunResponse, count int) ([]EditEffect, error) {
	if len(answer.Effects) != count {
		return nil, failure(ErrInternal, "the server sent effects of %d edits for %d that were sent", len(answer.Effects), count)
	}
	var found []EditEffect
	for _, effect := range answer.Effects {
		words := []rune(effect.GetEdit())
		if len(words) > mostWords {
			words = words[:mostWords]
		}
		found = append(found, EditEffect{string(words), effect.GetSelected(), effect.GetChanged(), effect.GetDeltaNorm(),
			effect.GetNorm(), effect.GetMaxDelta()})
	}
	return found, nil
}
