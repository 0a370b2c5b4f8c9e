package transparentllm_test

import (
	"errors"
	"fmt"
	"math"
	"testing"

	transparentllm "transparentllm.dev/go"
)

func tensorOf(t *testing.T, dtype transparentllm.Dtype, shape []int, data ...byte) *transparentllm.Tensor {
	t.Helper()
	made, err := transparentllm.NewTensor(dtype, shape, data)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestElementsOfEveryDtype(t *testing.T) {
	for _, c := range []struct {
		dtype transparentllm.Dtype
		data  []byte
		want  string
	}{
		{transparentllm.BOOL, []byte{0, 1}, "[0 1]"},
		{transparentllm.U8, []byte{0, 255}, "[0 255]"},
		{transparentllm.I8, []byte{0x80, 0x7F}, "[-128 127]"},
		{transparentllm.I16, []byte{0, 0x80, 0xFF, 0xFF}, "[-32768 -1]"},
		{transparentllm.I32, []byte{0, 0, 0, 0x80, 1, 0, 0, 0}, "[-2.147483648e+09 1]"},
		{transparentllm.I64, []byte{0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0x80}, "[-2 -9.223372036854776e+18]"},
		{transparentllm.F16, []byte{0x00, 0x3E, 0x01, 0x00, 0x00, 0xFC, 0x00, 0x7E}, "[1.5 5.960464477539063e-08 -Inf NaN]"},
		{transparentllm.BF16, []byte{0xC0, 0x3F, 0x80, 0xFF, 0xC1, 0x7F}, "[1.5 -Inf NaN]"},
		{transparentllm.F32, []byte{0x00, 0x00, 0xC0, 0x3F, 0x01, 0x00, 0x00, 0x00}, "[1.5 1.401298464324817e-45]"},
		{transparentllm.F64, []byte{0, 0, 0, 0, 0, 0, 0xF8, 0x3F}, "[1.5]"},
	} {
		got, err := tensorOf(t, c.dtype, []int{len(c.data) / c.dtype.Size()}, c.data...).Float64s()
		if said := fmt.Sprint(got); err != nil || said != c.want {
			t.Errorf("%v: %s, %v, not %s", c.dtype, said, err, c.want)
		}
	}
}

func TestAccessorsRefuseWhatTheyCannotGiveExactly(t *testing.T) {
	large := tensorOf(t, transparentllm.I64, []int{1}, 1, 0, 0, 0, 0, 0, 0x20, 0) // 2^53 + 1
	if _, err := large.Float64s(); !errors.Is(err, transparentllm.ErrInvalidRequest) {
		t.Errorf("2^53 + 1 as float64: %v", err)
	}
	if _, err := large.At(0); !errors.Is(err, transparentllm.ErrInvalidRequest) {
		t.Errorf("2^53 + 1 at its place: %v", err)
	}
	if got, err := large.Int64s(); err != nil || got[0] != 1<<53+1 {
		t.Errorf("2^53 + 1 as int64: %v, %v", got, err)
	}
	most := tensorOf(t, transparentllm.I64, []int{1}, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F)
	if _, err := most.Float64s(); err == nil {
		t.Error("2^63 - 1 as float64")
	}
	double := tensorOf(t, transparentllm.F64, nil, 0, 0, 0, 0, 0, 0, 0, 0)
	if _, err := double.Float32s(); err == nil {
		t.Error("F64 as float32")
	}
	if _, err := double.Int64s(); err == nil {
		t.Error("F64 as int64")
	}
	if _, err := double.Bools(); err == nil {
		t.Error("F64 as bool")
	}
}

func TestAt(t *testing.T) {
	matrix := tensorOf(t, transparentllm.U8, []int{2, 3}, 0, 1, 2, 3, 4, 5)
	if got, err := matrix.At(1, 2); got != 5 || err != nil {
		t.Errorf("[1, 2] is %v, %v", got, err)
	}
	scalar := tensorOf(t, transparentllm.BF16, nil, 0xC0, 0x3F)
	if got, err := scalar.At(); got != 1.5 || err != nil {
		t.Errorf("the scalar is %v, %v", got, err)
	}
	for _, wrong := range [][]int{{}, {0}, {0, 3}, {-1, 0}, {2, 0}, {0, 0, 0}} {
		if _, err := matrix.At(wrong...); !errors.Is(err, transparentllm.ErrIndexOutOfRange) {
			t.Errorf("%v: %v", wrong, err)
		}
	}
}

func TestANewTensorIsWhole(t *testing.T) {
	for name, made := range map[string]func() (*transparentllm.Tensor, error){
		"too few bytes": func() (*transparentllm.Tensor, error) {
			return transparentllm.NewTensor(transparentllm.F32, []int{2}, make([]byte, 7))
		},
		"no such dtype": func() (*transparentllm.Tensor, error) { return transparentllm.NewTensor(99, nil, make([]byte, 7)) },
		"a negative axis": func() (*transparentllm.Tensor, error) {
			return transparentllm.NewTensor(transparentllm.U8, []int{-1, -1}, []byte{1})
		},
		"an overflow": func() (*transparentllm.Tensor, error) {
			return transparentllm.NewTensor(transparentllm.U8, []int{math.MaxInt, math.MaxInt, 4}, nil)
		},
	} {
		if _, err := made(); !errors.Is(err, transparentllm.ErrInvalidRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	vector := transparentllm.NewVector([]float32{1.5})
	if got := vector.Bytes(); string(got) != "\x00\x00\xC0\x3F" || vector.Dtype() != transparentllm.F32 || vector.Shape()[0] != 1 {
		t.Errorf("a vector of % x", got)
	}
	if empty := tensorOf(t, transparentllm.F32, []int{3, 0}); empty.Len() != 0 {
		t.Errorf("%d elements in nothing", empty.Len())
	}
}
