package transparentllm

import (
	"context"
	"strconv"

	pb "transparentllm.dev/go/transparent_llm/v1"
)

// Fetch reads many values of the current run in one stream, in the order asked for. A failure of one is a failure of all.
//
// Errors: those of the reads; ErrInvalidRequest for a read of several tensors, which FetchParts takes.
func (c *Client) Fetch(ctx context.Context, reads []Read, options ...ReadOption) ([]*Tensor, error) {
	for i, read := range reads {
		if err := read.requireOneTensor("Fetch"); err != nil {
			return nil, failure(ErrInvalidRequest, "read %d: %s", i, err.(*Error).Message).because("INVALID_REQUEST", "item", strconv.Itoa(i))
		}
	}
	arrivals, err := c.fetch(ctx, reads, options)
	if err != nil {
		return nil, err
	}
	values := make([]*Tensor, len(arrivals))
	for i, came := range arrivals {
		values[i] = came[""]
	}
	return values, nil
}

// Parts are the tensors of one value, by their names: those of the parts of a value of several, and the method's own where it is
// one.
type Parts map[string]*Tensor

// FetchParts is Fetch for values of one tensor or of several.
//
// Errors: those of the reads.
func (c *Client) FetchParts(ctx context.Context, reads []Read, options ...ReadOption) ([]Parts, error) {
	if _, err := methodsOf(reads); err != nil {
		return nil, err
	}
	arrivals, err := c.fetch(ctx, reads, options)
	if err != nil {
		return nil, err
	}
	values := make([]Parts, len(arrivals))
	for i, came := range arrivals {
		values[i] = Parts(came)
		if whole := came[""]; whole != nil {
			values[i] = Parts{reads[i].method.name: whole}
		}
	}
	return values, nil
}

// fetch is what came for each of the reads, none of which is empty.
func (c *Client) fetch(ctx context.Context, reads []Read, options []ReadOption) ([]arrival, error) {
	wanted, err := methodsOf(reads)
	if err != nil {
		return nil, err
	}
	reading, err := readingOf(options, wanted...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.calls.timeout)
	defer cancel()
	var values []arrival
	err = c.ofRun(ctx, func(held *run) (err error) {
		values, err = c.fetched(ctx, held, reads, reading)
		return err
	})
	return values, err
}

// fetched is what came for each of the reads of a run; what is kept does not come again.
func (c *Client) fetched(ctx context.Context, held *run, reads []Read, reading *reading) ([]arrival, error) {
	keys, values := make([]keptKey, len(reads)), make([]arrival, len(reads))
	var missing []Read
	var places []int
	for i, read := range reads {
		var err error
		if keys[i], err = c.keyOf(ctx, held, read, reading); err != nil {
			return nil, err
		}
		if came := c.kept.find(keys[i]); came == nil {
			missing, places = append(missing, read), append(places, i)
		} else if values[i], err = c.value(ctx, held, read, true, came); err != nil {
			return nil, err
		}
	}
	if len(missing) == 0 {
		return values, nil
	}
	groups, factored, err := c.sent(ctx, held, missing, reading)
	if err != nil {
		return nil, err
	}
	for i, came := range groups {
		if values[places[i]], err = c.value(ctx, held, missing[i], factored[i], came); err != nil {
			return nil, err
		}
		c.kept.keep(keys[places[i]], came)
	}
	return values, nil
}

// sent asks for the reads in one stream, and tells which of them the factors would do for.
func (c *Client) sent(ctx context.Context, held *run, reads []Read, reading *reading) (groups []arrival, factored []bool, err error) {
	message := &pb.FetchRequest{RunId: held.id, Options: &pb.TensorOptions{}}
	wanted, each, most, known := make([]*method, len(reads)), make([]*expectation, len(reads)), 0, expected{}
	factored = make([]bool, len(reads))
	for i, read := range reads {
		wanted[i] = read.method
		if factored[i], err = c.multiplies(ctx, held, read, reading); err != nil {
			return nil, nil, err
		}
		item, err := read.item(reading.options(read.method, factored[i]))
		if err != nil {
			return nil, nil, err
		}
		message.Items = append(message.Items, item)
		most += read.method.tensors(factored[i])
		each[i] = c.expect(held, read, reading, factored[i])
		known.add(each[i])
	}
	tensors, err := c.calls.tensors(ctx, request{"Fetch", message, message.Options, held.key, known}, most, reading.progress)
	if err != nil {
		return nil, nil, err
	}
	if groups, err = grouped(wanted, tensors); err != nil {
		return nil, nil, err
	}
	for i, came := range groups {
		if err := each[i].checkCame(came); err != nil {
			return nil, nil, err
		}
	}
	return groups, factored, nil
}
