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

// TooLargeError says that a value takes more than its reader allows.
type TooLargeError struct {
	Name            string
	Needed, Allowed uint64
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%s takes %d bytes, but this client accepts at most %d: read a part of it by Slice, in a smaller "+
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

const (
	// Addressable is the most bytes that a process has addresses for; make panics when it is asked for more.
	Addressable = 1 << 47
	// mostAxes is twice as many as any value has; more of them only take time.
	mostAxes = 8
	// mostName is more bytes than any name of a tensor or an axis has, and mostEtag than any etag.
	mostName = 128
	mostEtag = 256
)

// ByteCount is what a tensor takes: the product of shape and element size. False if no tensor can be like that: an
// unknown type, more axes than any value has, or more than a process can address, where an axis of length 0 counts as 1.
func ByteCount(dtype pb.Dtype, shape []uint64) (uint64, bool) {
	size, ok := ElementSize(dtype)
	if !ok || len(shape) > mostAxes {
		return 0, false
	}
	taken, isEmpty := uint64(size), false
	for _, length := range shape {
		isEmpty = isEmpty || length == 0
		if length > Addressable/taken {
			return 0, false
		}
		taken *= max(1, length)
	}
	if isEmpty {
		return 0, true
	}
	return taken, true
}

// Product is that of a size and a shape, or the largest number there is if it is larger: for messages.
func Product(size int, shape []int) uint64 {
	product := uint64(size)
	for _, length := range shape {
		high, low := bits.Mul64(product, uint64(length))
		if high != 0 {
			low = math.MaxUint64
		}
		product = low
	}
	return product
}

// CheckHeader refuses a header that contradicts itself, or has more in it than any has.
func CheckHeader(head *pb.TensorHeader) error {
	if len(head.Shape) > mostAxes || len(head.Dims) != len(head.Shape) {
		return broken("the header of %.100q names %d axes of %d", head.Name, len(head.Dims), len(head.Shape))
	}
	if len(head.Name) > mostName || len(head.Etag) > mostEtag {
		return broken("the header of %.100q has a name of %d bytes and an etag of %d", head.Name, len(head.Name), len(head.Etag))
	}
	for _, axis := range head.Dims {
		if len(axis) > mostName {
			return broken("the header of %q has an axis with a name of %d bytes", head.Name, len(axis))
		}
	}
	if _, ok := ElementSize(head.Dtype); !ok {
		return broken("unknown dtype %d in the header of %q", head.Dtype, head.Name)
	}
	needed, ok := ByteCount(head.Dtype, head.Shape)
	if !ok {
		return broken("no tensor can have the shape %v", head.Shape)
	}
	if needed != head.TotalBytes {
		return broken("header contradicts itself: %v %v %q in %d bytes", head.Dtype, head.Shape, head.Dims, head.TotalBytes)
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
