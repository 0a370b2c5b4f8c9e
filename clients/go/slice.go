package transparentllm

import (
	pb "transparentllm.dev/go/transparent_llm/v1"
)

// cut copies the part of a tensor that the slices name. All of their axes are the tensor's.
func (t *Tensor) cut(slices []*pb.AxisSlice) *Tensor {
	indices := make([][]int, len(t.shape))
	made := &Tensor{dtype: t.dtype, shape: make([]int, len(t.shape)), dims: t.dims}
	for axis, length := range t.shape {
		part := &pb.AxisSlice{}
		for _, other := range slices {
			if other.Axis == t.dims[axis] {
				part = other
			}
		}
		indices[axis] = indicesOf(part, length)
		made.shape[axis] = len(indices[axis])
	}
	made.data = t.gather(nil, indices, 0)
	return made
}

// gather appends the elements at these indices, from the element number `base` on.
func (t *Tensor) gather(data []byte, indices [][]int, base int) []byte {
	axis := len(t.shape) - len(indices)
	if len(indices) == 0 {
		size := t.dtype.Size()
		return append(data, t.data[base*size:(base+1)*size]...)
	}
	for _, index := range indices[0] {
		data = t.gather(data, indices[1:], base+index*t.stride(axis))
	}
	return data
}

func (t *Tensor) stride(axis int) int {
	stride := 1
	for _, length := range t.shape[axis+1:] {
		stride *= length
	}
	return stride
}

// indicesOf gives the indices of start:stop:step on an axis, as Python does. The step is at least 1.
func indicesOf(part *pb.AxisSlice, length int) []int {
	start, stop, step := boundsOf(part, int64(length))
	var found []int
	for i := start; i < stop; i += step {
		found = append(found, int(i))
		if step >= stop-i {
			break // before the sum overflows
		}
	}
	return found
}

// countOf is the number of these indices.
func countOf(part *pb.AxisSlice, length int64) int64 {
	start, stop, step := boundsOf(part, length)
	if start >= stop {
		return 0
	}
	return (stop-start-1)/step + 1
}

func boundsOf(part *pb.AxisSlice, length int64) (start, stop, step int64) {
	start, stop, step = 0, length, 1
	if part.Start != nil {
		start = within(*part.Start, length)
	}
	if part.Stop != nil {
		stop = within(*part.Stop, length)
	}
	if part.Step != nil {
		step = *part.Step
	}
	return start, stop, step
}

// within is a bound from 0 to length; a negative one counts from the end.
func within(bound, length int64) int64 {
	if bound < 0 {
		bound += length
	}
	switch {
	case bound < 0:
		return 0
	case bound > length:
		return length
	}
	return bound
}
