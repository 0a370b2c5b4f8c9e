package transparentllm

import (
	"context"

	"transparentllm.dev/go/internal/wire"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

// mostPlanned reads of one call: each is asked for twice, and a server takes 4096.
const mostPlanned = 2000

// PlannedRead is what a read would bring.
type PlannedRead struct {
	// Name is the method's, in snake case; of a part METHOD.PART.
	Name string
	// Shape is the length of each axis, Dims their names.
	Shape []int
	Dims  []string
	Dtype Dtype
	// Bytes of the value, in the memory of whoever reads it.
	Bytes int64
	// TransferBytes are sent for it: less than Bytes where the value is a product and its factors travel. Output vectors of
	// neurons, which are fetched once and kept, are not in it.
	TransferBytes int64
	// Parts are the tensors that the value consists of, if those are several. Shape, Dims and Dtype are those of the first then,
	// bytes those of all.
	Parts []PlannedRead
}

// Plan tells what FetchParts would bring of the current run with the same options: shapes, types and bytes. Nothing is computed.
//
// Errors: those of the reads, but for values that are too large; ErrNotSupported where the server cannot plan.
func (c *Client) Plan(ctx context.Context, reads []Read, options ...ReadOption) ([]PlannedRead, error) {
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
	if err := c.require(ctx, "plan"); err != nil {
		return nil, err
	}
	var planned []PlannedRead
	for len(reads) > 0 {
		count := len(reads)
		if count > mostPlanned {
			count = mostPlanned
		}
		var some []PlannedRead
		err := c.ofRun(ctx, func(held *run) (err error) {
			some, err = c.planned(ctx, held, reads[:count], reading)
			return err
		})
		if err != nil {
			return nil, err
		}
		planned, reads = append(planned, some...), reads[count:]
	}
	return planned, nil
}

// planned asks for the values themselves, and then for them as they would travel.
func (c *Client) planned(ctx context.Context, held *run, reads []Read, reading *reading) ([]PlannedRead, error) {
	message, known := &pb.PlanRequest{RunId: held.id}, expected{}
	var wanted []*method
	var each []*expectation
	add := func(read Read, factored bool) error {
		item, err := read.item(reading.options(read.method, factored))
		if err != nil {
			return err
		}
		one := c.expect(held, read, reading, factored)
		known.add(one)
		message.Items, wanted, each = append(message.Items, item), append(wanted, read.method), append(each, one)
		return nil
	}
	for _, read := range reads {
		if err := add(read, false); err != nil {
			return nil, err
		}
	}
	for _, read := range reads {
		factored, err := c.multiplies(ctx, held, read, reading)
		if err != nil {
			return nil, err
		}
		if err := add(read, factored); err != nil {
			return nil, err
		}
	}
	answer := &pb.PlanResponse{}
	if err := c.calls.unary(ctx, "Plan", message, answer, held.key); err != nil {
		return nil, err
	}
	groups, err := plannedGroups(answer, wanted, known)
	if err != nil {
		return nil, FromError(err, c.calls.target)
	}
	for i, came := range groups {
		if err := each[i].checkCame(came); err != nil {
			return nil, err
		}
		if came[""] == nil && !each[i].factored && !each[i].method.isParts() {
			return nil, failure(ErrInternal, "%s plans factors of %s where the value was asked for", c.calls.target, wanted[i].name)
		}
	}
	made := make([]PlannedRead, len(reads))
	for i, read := range reads {
		made[i] = plannedRead(read.method, groups[i])
		made[i].TransferBytes = plannedRead(read.method, groups[len(reads)+i]).Bytes
	}
	return made, nil
}

// plannedGroups are the headers of an answer by reads, as tensors without elements.
func plannedGroups(answer *pb.PlanResponse, wanted []*method, known expected) ([]arrival, error) {
	var tensors []wire.Tensor
	for _, head := range answer.Tensors {
		if err := wire.CheckHeader(head); err != nil {
			return nil, err
		}
		if err := known.check(head); err != nil {
			return nil, err
		}
		tensors = append(tensors, wire.Tensor{Header: head})
	}
	return grouped(wanted, tensors)
}

// plannedRead is what came for one read, in the order of its parts.
func plannedRead(m *method, came arrival) PlannedRead {
	if whole := came[""]; whole != nil {
		return planOf(m.name, whole)
	}
	var parts []PlannedRead
	var sum int64
	for _, part := range m.parts {
		if one := came[part.name]; one != nil {
			parts = append(parts, planOf(m.name+"."+part.name, one))
			sum += parts[len(parts)-1].Bytes
		}
	}
	made := parts[0]
	made.Name, made.Bytes, made.TransferBytes, made.Parts = m.name, sum, sum, parts
	return made
}

func planOf(name string, tensor *Tensor) PlannedRead {
	bytes := int64(wire.Product(tensor.dtype.Size(), tensor.shape))
	return PlannedRead{Name: name, Shape: tensor.shape, Dims: tensor.Dims(), Dtype: tensor.dtype, Bytes: bytes, TransferBytes: bytes}
}
