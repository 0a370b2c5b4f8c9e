package transparentllm

import (
	"sort"
	"strings"

	pb "transparentllm.dev/go/transparent_llm/v1"
)

// ReadOption is one of what a read can be told.
type ReadOption func(*reading)

// Bound is one of the three numbers of a Slice.
type Bound func(*pb.AxisSlice)

// Start is the first index; negative counts from the end. Default: 0.
func Start(index int64) Bound { return func(part *pb.AxisSlice) { part.Start = &index } }

// Stop is the index after the last; negative counts from the end. Default: the length of the axis.
func Stop(index int64) Bound { return func(part *pb.AxisSlice) { part.Stop = &index } }

// Step is the distance of two indices, at least 1. Default: 1.
func Step(distance int64) Bound { return func(part *pb.AxisSlice) { part.Step = &distance } }

// Slice asks for a part of a named axis, as Python's start:stop:step. The server cuts before it sends or computes. The
// value keeps the axis, which is shorter. An axis that the value does not have, or one of the values of a Fetch, an axis twice,
// or a step below 1 is ErrInvalidRequest, INVALID_SLICE.
func Slice(axis string, bounds ...Bound) ReadOption {
	part := &pb.AxisSlice{Axis: axis}
	for _, bound := range bounds {
		bound(part)
	}
	return func(r *reading) { r.slices = append(r.slices, part) }
}

// WireDtype asks for a floating value in this type; integers come as they are. Anything but a floating type is
// ErrInvalidRequest, INVALID_DTYPE.
func WireDtype(dtype Dtype) ReadOption {
	return func(r *reading) { r.dtype, r.hasDtype = dtype, true }
}

// Progress is called after each piece that came, with the bytes received so far and the bytes of all tensors of the
// stream whose header has come. After an interruption they can be less than before. It is called by the goroutine that reads.
func Progress(report func(received, total int64)) ReadOption {
	return func(r *reading) { r.progress = report }
}

// reading is what is asked for of every value of a call.
type reading struct {
	slices   []*pb.AxisSlice
	dtype    Dtype
	hasDtype bool
	progress func(received, total int64)
}

// otherName is what Unembed calls the axis that is d_vocab elsewhere.
const otherName = "vocab"

// oneName is that by which an axis is known here: d_vocab has two.
func oneName(axis string) string {
	if axis == otherName {
		return "d_vocab"
	}
	return axis
}

// readingOf is what the options ask for of values with these axes, by their names; a Slice of another axis is refused.
func readingOf(options []ReadOption, values ...*method) (*reading, error) {
	made := &reading{}
	for _, option := range options {
		option(made)
	}
	if made.hasDtype && !made.dtype.IsFloating() {
		return nil, failure(ErrInvalidRequest, "WireDtype takes a floating type, got %v", made.dtype).because(
			"INVALID_DTYPE", "got", made.dtype.String(), "allowed", "F16, BF16, F32, F64")
	}
	seen := map[string]bool{}
	for _, part := range made.slices {
		switch {
		case !knownAxes[part.Axis]:
			return nil, invalidSlice(part.Axis, "no value has an axis %q; the axes are %s", part.Axis, axisNames())
		case seen[oneName(part.Axis)]:
			return nil, invalidSlice(part.Axis, "axis %q is sliced twice; give each axis once", part.Axis)
		case part.Step != nil && *part.Step < 1:
			return nil, invalidSlice(part.Axis, "step %d on axis %q: a step must be at least 1", *part.Step, part.Axis)
		}
		seen[oneName(part.Axis)] = true
	}
	for _, value := range values {
		if err := made.require(value.name, value.axes()); err != nil {
			return nil, err
		}
	}
	return made, nil
}

// require refuses a slice of an axis that a value does not have: it would come whole, as if nothing had been asked for.
func (r *reading) require(name string, dims []string) error {
	has := make([]string, len(dims))
	known := map[string]bool{}
	for i, axis := range dims {
		has[i] = oneName(axis)
		known[has[i]] = true
	}
	for _, part := range r.slices {
		if !known[oneName(part.Axis)] {
			return invalidSlice(part.Axis, "%s has no axis %q, which a Slice of this call cuts; its axes are %s: read it without, "+
				"or in a call of its own", name, part.Axis, strings.Join(has, ", "))
		}
	}
	return nil
}

// of gives the slices that concern a value with these axes.
func (r *reading) of(dims []string) []*pb.AxisSlice {
	var found []*pb.AxisSlice
	for _, part := range r.slices {
		for _, axis := range dims {
			if oneName(axis) == oneName(part.Axis) {
				found = append(found, &pb.AxisSlice{Axis: axis, Start: part.Start, Stop: part.Stop, Step: part.Step})
			}
		}
	}
	return found
}

// options for the request of one value.
func (r *reading) options(m *method, factored bool) *pb.TensorOptions {
	made := &pb.TensorOptions{Slices: r.of(m.axes())}
	if r.hasDtype && !m.integers() {
		made.Dtype = pb.Dtype(r.dtype)
	}
	if factored {
		made.Encoding = pb.Encoding_ENCODING_FACTORED
	}
	return made
}

func invalidSlice(axis, format string, arguments ...any) error {
	return failure(ErrInvalidRequest, format, arguments...).because("INVALID_SLICE", "axis", axis)
}

func axisNames() string {
	names := make([]string, 0, len(knownAxes))
	for name := range knownAxes {
		if name != otherName {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return strings.Join(names, ", ")
}
