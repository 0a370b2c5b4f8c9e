package transparentllm

import (
	"strconv"
	"strings"

	"transparentllm.dev/go/internal/wire"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

// Dtype is the element type of a tensor, under the names of the safetensors format.
type Dtype int32

// Element types. BOOL is one byte an element, 0 or 1; BF16 is the upper 16 bits of an F32.
const (
	BOOL = Dtype(pb.Dtype_DTYPE_BOOL)
	U8   = Dtype(pb.Dtype_DTYPE_U8)
	I8   = Dtype(pb.Dtype_DTYPE_I8)
	I16  = Dtype(pb.Dtype_DTYPE_I16)
	I32  = Dtype(pb.Dtype_DTYPE_I32)
	I64  = Dtype(pb.Dtype_DTYPE_I64)
	F16  = Dtype(pb.Dtype_DTYPE_F16)
	BF16 = Dtype(pb.Dtype_DTYPE_BF16)
	F32  = Dtype(pb.Dtype_DTYPE_F32)
	F64  = Dtype(pb.Dtype_DTYPE_F64)
)

// String is the safetensors name, for example "BF16".
func (d Dtype) String() string {
	if name, ok := pb.Dtype_name[int32(d)]; ok {
		return strings.TrimPrefix(name, "DTYPE_")
	}
	return "Dtype(" + strconv.Itoa(int(d)) + ")"
}

// Size is the number of bytes of one element; 0 for a type that does not exist.
func (d Dtype) Size() int {
	size, _ := wire.ElementSize(pb.Dtype(d))
	return size
}

// IsFloating tells whether the type is one of F16, BF16, F32 and F64.
func (d Dtype) IsFloating() bool {
	return d == F16 || d == BF16 || d == F32 || d == F64
}
