// Package wire reads what travels: streams of tensors and statuses of failed calls. It trusts no peer.
package wire

import (
	"fmt"
	"math"
	"math/bits"

	pb "transparentllm.dev/go/transparent_llm/v1"
)

// StreamError says that a stream does not follow tensor.proto: the peer is broken or speaks another protocol.
type StreamError struct{ What string }

func (e *StreamError) Error() string { return e.What }

func broken(format string, arguments ...any) error {
	return &StreamError{fmt.Sprintf(format, arguments...)}
}

// TooLargeError says that a tensor takes more than its reader allows.
type TooLargeError struct {
	Name            string
	Needed, Allowed uint64
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%s takes %d bytes, this client takes at most %d: read a part of it by Slice, in a smaller "+
		"WireDtype, or raise WithMaxBytes", e.Name, e.Needed, e.Allowed)
}

// ElementSize is the number of bytes of one element; false for a type that does not exist.
func ElementSize(dtype pb.Dtype) (int, bool) {
	switch dtype {
	case pb.Dtype_DTYPE_BOOL, pb.Dtype_DTYPE_U8, pb.Dtype_DTYPE_I8:
		return 1, true
	case pb.Dtype_DTYPE_I16, pb.Dtype_DTYPE_F16, pb.Dtype_DTYPE_BF16:
		return 2, true
	case pb.Dtype_DTYPE_I32, pb.Dtype_DTYPE_F32:
		return 4, true
	case pb.Dtype_DTYPE_I64, pb.Dtype_DTYPE_F64:
		return 8, true
	}
	return 0, false
}

// ByteCount is what a tensor takes: the product of shape and element size. False if no tensor can be like that: an
// unknown type, or an axis, a stride or the whole past what an int can count.
func ByteCount(dtype pb.Dtype, shape []uint64) (uint64, bool) {
	size, ok := ElementSize(dtype)
	if !ok {
		return 0, false
	}
	count, stride := uint64(size), uint64(1)
	for i := len(shape) - 1; i >= 0; i-- {
		if shape[i] > math.MaxInt || stride > math.MaxInt {
			return 0, false
		}
		if count, ok = product(count, shape[i]); !ok && !isEmpty(shape) {
			return 0, false
		}
		if stride, ok = product(stride, atLeastOne(shape[i])); !ok && i > 0 {
			return 0, false
		}
	}
	if isEmpty(shape) {
		return 0, true
	}
	return count, count <= math.MaxInt
}

func product(a, b uint64) (uint64, bool) {
	high, low := bits.Mul64(a, b)
	return low, high == 0
}

func atLeastOne(length uint64) uint64 {
	if length == 0 {
		return 1
	}
	return length
}

func isEmpty(shape []uint64) bool {
	for _, length := range shape {
		if length == 0 {
			return true
		}
	}
	return false
}

// mostAxes is more than any value has; more of them only take time.
const mostAxes = 64

// checkHeader refuses a header that contradicts itself.
func checkHeader(head *pb.TensorHeader) error {
	if len(head.Shape) > mostAxes || len(head.Dims) != len(head.Shape) {
		return broken("the header of %q names %d axes of %d", head.Name, len(head.Dims), len(head.Shape))
	}
	if _, ok := ElementSize(head.Dtype); !ok {
		return broken("unknown dtype %d in the header of %q", head.Dtype, head.Name)
	}
	needed, ok := ByteCount(head.Dtype, head.Shape)
	if !ok {
		return broken("no tensor can have the shape %v", head.Shape)
	}
	if needed != head.TotalBytes {
		return broken("header contradicts itself: %v %v %v in %d bytes", head.Dtype, head.Shape, head.Dims, head.TotalBytes)
	}
	return nil
}

// SameTensor tells whether two headers describe one tensor, whatever stream they came in.
func SameTensor(a, b *pb.TensorHeader) bool {
	if a.Name != b.Name || a.Dtype != b.Dtype || len(a.Shape) != len(b.Shape) || len(a.Dims) != len(b.Dims) {
		return false
	}
	for axis := range a.Shape {
		if a.Shape[axis] != b.Shape[axis] || a.Dims[axis] != b.Dims[axis] {
			return false
		}
	}
	return true
}
