package transparentllm

import (
	"encoding/binary"
	"math"
	"strconv"

	"transparentllm.dev/go/internal/half"
	"transparentllm.dev/go/internal/wire"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

// Tensor is a value as it came: elements in C order, little-endian, in the dtype of the wire. One that a method returned
// belongs to the caller.
type Tensor struct {
	dtype Dtype
	shape []int
	dims  []string
	data  []byte
}

// NewTensor makes a tensor of raw elements in C order, little-endian, which it does not copy. A scalar has no shape.
//
// Errors: ErrInvalidRequest, INVALID_DTYPE for a type that does not exist, INVALID_SHAPE where the number of bytes is not
// the product of shape and element size.
func NewTensor(dtype Dtype, shape []int, data []byte) (*Tensor, error) {
	if dtype.Size() == 0 {
		return nil, failure(ErrInvalidRequest, "dtype %d is unknown", dtype).because("INVALID_DTYPE", "got", dtype.String())
	}
	lengths := make([]uint64, len(shape))
	for axis, length := range shape {
		lengths[axis] = uint64(length) // a negative one is too large
	}
	needed, ok := wire.ByteCount(pb.Dtype(dtype), lengths)
	if !ok || needed != uint64(len(data)) {
		return nil, failure(ErrInvalidRequest, "a %v tensor of shape %v takes another number of bytes than %d", dtype, shape,
			len(data)).because("INVALID_SHAPE", "expected", strconv.FormatUint(needed, 10), "got", strconv.Itoa(len(data)))
	}
	return &Tensor{dtype: dtype, shape: append([]int(nil), shape...), data: data}, nil
}

// NewVector makes an F32 tensor of one axis, as Unembed takes it.
func NewVector(values []float32) *Tensor {
	data := make([]byte, 4*len(values))
	for i, value := range values {
		binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(value))
	}
	return &Tensor{dtype: F32, shape: []int{len(values)}, data: data}
}

// arrived makes a tensor of what came; the header was checked.
func arrived(held wire.Tensor) *Tensor {
	shape := make([]int, len(held.Header.Shape))
	for axis, length := range held.Header.Shape {
		shape[axis] = int(length)
	}
	return &Tensor{Dtype(held.Header.Dtype), shape, held.Header.Dims, held.Data}
}

// Dtype is the element type in which it came.
func (t *Tensor) Dtype() Dtype { return t.dtype }

// Shape is the length of each axis; empty for a scalar.
func (t *Tensor) Shape() []int { return append([]int{}, t.shape...) }

// Dims names the axes, for example "batch", "pos", "d_model". One that NewTensor made has none.
func (t *Tensor) Dims() []string { return append([]string{}, t.dims...) }

// Bytes gives the elements themselves: in C order, little-endian, not copied.
func (t *Tensor) Bytes() []byte { return t.data }

// Len is the number of elements.
func (t *Tensor) Len() int { return len(t.data) / t.dtype.Size() }

// Float32s gives the elements as float32, in C order. It is exact, so it takes F32, BF16 and F16 only.
//
// Errors: ErrInvalidRequest, INVALID_DTYPE, for another dtype; Float64s takes more of them.
func (t *Tensor) Float32s() ([]float32, error) {
	if !t.dtype.IsFloating() || t.dtype == F64 {
		return nil, t.wrongDtype("Float32s", "F32, BF16, F16")
	}
	return t.singles(0, t.Len()), nil
}

// Float64s gives the elements as float64, in C order; BOOL as 0 and 1.
//
// Errors: ErrInvalidRequest, INVALID_DTYPE, for an I64 that no float64 is equal to; Int64s has it.
func (t *Tensor) Float64s() ([]float64, error) {
	values := make([]float64, t.Len())
	for i := range values {
		var exact bool
		if values[i], exact = t.float64(i); !exact {
			return nil, t.wrongDtype("Float64s", "integers up to 2^53")
		}
	}
	return values, nil
}

// Int64s gives the elements of a tensor of integers or BOOL, in C order.
//
// Errors: ErrInvalidRequest, INVALID_DTYPE, for a floating dtype.
func (t *Tensor) Int64s() ([]int64, error) {
	if t.dtype.IsFloating() {
		return nil, t.wrongDtype("Int64s", "BOOL, U8, I8, I16, I32, I64")
	}
	values := make([]int64, t.Len())
	for i := range values {
		values[i] = t.int64(i)
	}
	return values, nil
}

// Bools gives the elements of a BOOL tensor, in C order.
//
// Errors: ErrInvalidRequest, INVALID_DTYPE, for another dtype.
func (t *Tensor) Bools() ([]bool, error) {
	if t.dtype != BOOL {
		return nil, t.wrongDtype("Bools", "BOOL")
	}
	values := make([]bool, t.Len())
	for i, element := range t.data {
		values[i] = element != 0
	}
	return values, nil
}

// At gives one element by its index on each axis, from 0.
//
// Errors: ErrIndexOutOfRange for an index outside its axis or another number of them; as Float64s.
func (t *Tensor) At(index ...int) (float64, error) {
	if len(index) != len(t.shape) {
		return 0, failure(ErrIndexOutOfRange, "%d indices for the %d axes of the tensor", len(index), len(t.shape))
	}
	place := 0
	for axis, i := range index {
		if i < 0 || i >= t.shape[axis] {
			return 0, failure(ErrIndexOutOfRange, "index %d is outside axis %d of length %d", i, axis, t.shape[axis]).because(
				"INDEX_OUT_OF_RANGE", "axis", strconv.Itoa(axis), "size", strconv.Itoa(t.shape[axis]), "got", strconv.Itoa(i))
		}
		place = place*t.shape[axis] + i
	}
	value, exact := t.float64(place)
	if !exact {
		return 0, t.wrongDtype("At", "integers up to 2^53")
	}
	return value, nil
}

func (t *Tensor) wrongDtype(method, allowed string) error {
	return failure(ErrInvalidRequest, "%s is not exact for this %v tensor; it takes %s", method, t.dtype, allowed).because(
		"INVALID_DTYPE", "got", t.dtype.String(), "allowed", allowed)
}

// singles gives count elements of a floating tensor, from one on.
func (t *Tensor) singles(from, count int) []float32 {
	values := make([]float32, count)
	if t.dtype != F32 {
		for i := range values {
			values[i] = t.float32(from + i)
		}
		return values
	}
	for i := range values {
		values[i] = math.Float32frombits(binary.LittleEndian.Uint32(t.data[4*(from+i):]))
	}
	return values
}

// float32 is element i of a floating tensor; an F64 is rounded.
func (t *Tensor) float32(i int) float32 {
	switch t.dtype {
	case BF16:
		return half.FromBF16(binary.LittleEndian.Uint16(t.data[2*i:]))
	case F16:
		return half.FromF16(binary.LittleEndian.Uint16(t.data[2*i:]))
	case F64:
		return float32(math.Float64frombits(binary.LittleEndian.Uint64(t.data[8*i:])))
	}
	return math.Float32frombits(binary.LittleEndian.Uint32(t.data[4*i:]))
}

// float64 is element i, and whether it is exactly that.
func (t *Tensor) float64(i int) (float64, bool) {
	switch {
	case t.dtype == F64:
		return math.Float64frombits(binary.LittleEndian.Uint64(t.data[8*i:])), true
	case t.dtype.IsFloating():
		return float64(t.float32(i)), true
	}
	held := t.int64(i)
	value := float64(held)
	return value, value < 1<<63 && int64(value) == held
}

// int64 is element i of a tensor of integers or BOOL.
func (t *Tensor) int64(i int) int64 {
	switch t.dtype {
	case I8:
		return int64(int8(t.data[i]))
	case I16:
		return int64(int16(binary.LittleEndian.Uint16(t.data[2*i:])))
	case I32:
		return int64(int32(binary.LittleEndian.Uint32(t.data[4*i:])))
	case I64:
		return int64(binary.LittleEndian.Uint64(t.data[8*i:]))
	case BOOL:
		if t.data[i] != 0 {
			return 1
		}
		return 0
	}
	return int64(t.data[i])
}
