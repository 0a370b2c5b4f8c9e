package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"

	transparentllm "transparentllm.dev/go"
)

type tensor = transparentllm.Tensor

// tensors are the methods that answer one.
var tensors = map[string]func(called) (*tensor, error){
	"tokens":              func(c called) (*tensor, error) { return c.llm.Tokens(c.options...) },
	"mask":                func(c called) (*tensor, error) { return c.llm.Mask(c.options...) },
	"logits":              func(c called) (*tensor, error) { return c.llm.Logits(c.ctx, c.options...) },
	"unembed":             unembed,
	"residual_in":         ofIndices(1, func(c called, i []int) (*tensor, error) { return c.llm.ResidualIn(c.ctx, i[0], c.options...) }),
	"residual_after_attn": ofIndices(1, func(c called, i []int) (*tensor, error) { return c.llm.ResidualAfterAttn(c.ctx, i[0], c.options...) }),
	"residual_out":        ofIndices(1, func(c called, i []int) (*tensor, error) { return c.llm.ResidualOut(c.ctx, i[0], c.options...) }),
	"ffn_out":             ofIndices(1, func(c called, i []int) (*tensor, error) { return c.llm.FfnOut(c.ctx, i[0], c.options...) }),
	"decomposed_ffn_out": ofIndices(3, func(c called, i []int) (*tensor, error) {
		return c.llm.DecomposedFfnOut(c.ctx, i[0], i[1], i[2], c.options...)
	}),
	"neuron_activations": ofIndices(3, func(c called, i []int) (*tensor, error) {
		return c.llm.NeuronActivations(c.ctx, i[0], i[1], i[2], c.options...)
	}),
	"neuron_output": ofIndices(2, func(c called, i []int) (*tensor, error) { return c.llm.NeuronOutput(c.ctx, i[0], i[1], c.options...) }),
	"attention_matrix": ofIndices(3, func(c called, i []int) (*tensor, error) {
		return c.llm.AttentionMatrix(c.ctx, i[0], i[1], i[2], c.options...)
	}),
	"attention_output": attentionOutput,
	"decomposed_attn":  ofIndices(2, func(c called, i []int) (*tensor, error) { return c.llm.DecomposedAttn(c.ctx, i[0], i[1], c.options...) }),
}

// ofIndices is a method of so many indices.
func ofIndices(count int, method func(called, []int) (*tensor, error)) func(called) (*tensor, error) {
	return func(c called) (*tensor, error) {
		given, err := indices(c.args)
		if err != nil {
			return nil, err
		}
		if len(given) != count {
			return nil, fmt.Errorf("%d indices, not %d", len(given), count)
		}
		return method(c, given)
	}
}

func attentionOutput(c called) (*tensor, error) {
	given, err := indices(c.args)
	switch {
	case err != nil:
		return nil, err
	case len(given) == 3:
		return c.llm.AttentionOutput(c.ctx, given[0], given[1], given[2], c.options...)
	case len(given) == 4:
		return c.llm.AttentionOutputOfHead(c.ctx, given[0], given[1], given[2], given[3], c.options...)
	}
	return nil, fmt.Errorf("%d indices, not 3 or 4", len(given))
}

func unembed(c called) (*tensor, error) {
	vector, err := tensorOf(c, 0)
	if err != nil {
		return nil, err
	}
	normalize, err := argument[bool](c, 1)
	if err != nil {
		return nil, err
	}
	return c.llm.Unembed(c.ctx, vector, normalize, c.options...)
}

// tensorOf is an argument that is a tensor.
func tensorOf(c called, i int) (*tensor, error) {
	given, err := argument[struct {
		Dtype string
		Shape []int
		Data  []byte
	}](c, i)
	if err != nil {
		return nil, err
	}
	dtype, err := dtypeNamed(given.Dtype)
	if err != nil {
		return nil, err
	}
	return transparentllm.NewTensor(dtype, given.Shape, given.Data)
}

func (c called) fetch() (fields, error) {
	reads, err := c.reads()
	if err != nil {
		return nil, err
	}
	got, err := c.llm.Fetch(c.ctx, reads, c.options...)
	if err != nil {
		return nil, err
	}
	all := []fields{}
	for _, value := range got {
		held, err := encoded(value)
		if err != nil {
			return nil, err
		}
		all = append(all, held)
	}
	return fields{"tensors": all}, nil
}

// reads are those of the first argument.
func (c called) reads() ([]transparentllm.Read, error) {
	wanted, err := argument[[][]json.RawMessage](c, 0)
	if err != nil {
		return nil, err
	}
	var reads []transparentllm.Read
	for _, parts := range wanted {
		read, err := readOf(parts)
		if err != nil {
			return nil, err
		}
		reads = append(reads, read)
	}
	return reads, nil
}

func (c called) plan() (any, error) {
	reads, err := c.reads()
	if err != nil {
		return nil, err
	}
	planned, err := c.llm.Plan(c.ctx, reads, c.options...)
	listed := []fields{}
	for _, each := range planned {
		listed = append(listed, fields{"name": each.Name, "shape": each.Shape, "dims": each.Dims, "dtype": each.Dtype.String(),
			"bytes": each.Bytes, "transfer_bytes": each.TransferBytes})
	}
	return listed, err
}

func readOf(parts []json.RawMessage) (read transparentllm.Read, err error) {
	var name string
	if len(parts) == 0 {
		return read, fmt.Errorf("a read without a name")
	}
	if err := json.Unmarshal(parts[0], &name); err != nil {
		return read, err
	}
	plain, object := split(parts[1:])
	given, err := indices(plain)
	if err != nil || object == nil {
		return orError(err, func() (transparentllm.Read, error) { return transparentllm.NewRead(name, given...) })
	}
	named, index, err := parameters(object)
	if err != nil {
		return read, err
	}
	if index != nil {
		given = append(given, *index)
	}
	if read, err = transparentllm.NewRead(name, given...); err != nil {
		return read, err
	}
	return read.With(named)
}

// indices are whole numbers; a null at the end is left out.
func indices(parts []json.RawMessage) ([]int, error) {
	if len(parts) > 0 && string(parts[len(parts)-1]) == "null" {
		parts = parts[:len(parts)-1]
	}
	given := make([]int, len(parts))
	for i, part := range parts {
		if string(part) == "null" {
			return nil, fmt.Errorf("index %d is missing", i)
		}
		if err := json.Unmarshal(part, &given[i]); err != nil {
			return nil, err
		}
	}
	return given, nil
}

// encoded is a tensor as the suite compares it: its elements as they came, and as numbers.
func encoded(value *tensor) (fields, error) {
	numbers, err := numbers(value)
	if err != nil {
		return nil, err
	}
	raw := make([]byte, 8*len(numbers))
	for i, number := range numbers {
		binary.LittleEndian.PutUint64(raw[8*i:], math.Float64bits(number))
	}
	data := append([]byte{}, value.Bytes()...) // nil would become null
	return fields{"dtype": value.Dtype().String(), "shape": value.Shape(), "dims": value.Dims(), "data": data, "values": raw}, nil
}

func numbers(value *tensor) ([]float64, error) {
	if value.Dtype() == transparentllm.F64 {
		return value.Float64s()
	}
	if value.Dtype().IsFloating() {
		singles, err := value.Float32s()
		return widened(singles), err
	}
	integers, err := value.Int64s()
	return widened(integers), err
}

func widened[T float32 | int64](elements []T) []float64 {
	numbers := make([]float64, len(elements))
	for i, element := range elements {
		numbers[i] = float64(element)
	}
	return numbers
}

func dtypeNamed(name string) (transparentllm.Dtype, error) {
	for dtype := transparentllm.BOOL; dtype.Size() > 0; dtype++ {
		if dtype.String() == name {
			return dtype, nil
		}
	}
	return 0, fmt.Errorf("no such dtype: %q", name)
}
