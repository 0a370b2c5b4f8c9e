package transparentllm

import (
	"context"
	"encoding/binary"
	"math"
	"sort"

	"transparentllm.dev/go/internal/half"
	"transparentllm.dev/go/internal/wire"
)

// Products of factors. A product is the definition of the value: taken in float32, from left to right, rounded once to
// the dtype of the first factor. So whoever multiplies gets the same bits.

// attnProduct is value[t, s, h] = (pattern[h, t, s] * value_out[s, h]) * gain[t]. It ends with the context, by its error.
func attnProduct(ctx context.Context, came arrival, maxBytes int64) (*Tensor, error) {
	pattern, offered, gain := came["pattern"], came["value_out"], came["gain"]
	if err := checkAttn(came); err != nil {
		return nil, err
	}
	heads, targets, sources, width := pattern.shape[0], pattern.shape[1], pattern.shape[2], offered.shape[2]
	product, err := room("decomposed_attn", pattern.dtype, []int{targets, sources, heads, width}, maxBytes)
	if err != nil {
		return nil, err
	}
	if len(product.data) == 0 {
		return product, nil // its other axes may be of any length
	}
	offers, row, size := offered.singles(0, offered.Len()), make([]float32, width), width*pattern.dtype.Size()
	at := 0
	for t := 0; t < targets; t++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		gains := gainRow(gain, t, width)
		for s := 0; s < sources; s++ {
			for h := 0; h < heads; h++ {
				weight := pattern.float32((h*targets+t)*sources + s)
				scale(row, weight, offers[(s*heads+h)*width:], gains)
				encode(product.dtype, product.data[at:at+size], row)
				at += size
			}
		}
	}
	return product, nil
}

// ffnProduct is value[n] = (activations[n] * outputs[n]) * gain, for the neurons within the spans; all others are 0.
// It ends with the context too.
func ffnProduct(ctx context.Context, came arrival, outputs *Tensor, maxBytes int64) (*Tensor, error) {
	activations, gain := came["activations"], came["gain"]
	if err := checkFfn(came, outputs); err != nil {
		return nil, err
	}
	count, width := outputs.shape[0], outputs.shape[1]
	spans, err := spansOf(came["spans"], activations.Len(), count)
	if err != nil {
		return nil, err
	}
	product, err := room("decomposed_ffn_out", activations.dtype, []int{count, width}, maxBytes)
	if err != nil {
		return nil, err
	}
	row, gains, size, i := make([]float32, width), gainRow(gain, 0, width), width*activations.dtype.Size(), 0
	for _, span := range spans {
		for n := span[0]; n < span[1]; n++ {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			scale(row, activations.float32(i), outputs.singles(n*width, width), gains)
			encode(product.dtype, product.data[n*size:(n+1)*size], row)
			i++
		}
	}
	return product, nil
}

// scale sets row to (weight * vector) * gains; each product is rounded to float32. Without gains: weight * vector.
func scale(row []float32, weight float32, vector, gains []float32) {
	vector = vector[:len(row)]
	if gains == nil {
		for i := range row {
			row[i] = weight * vector[i]
		}
		return
	}
	for i := range row {
		row[i] = float32(weight*vector[i]) * gains[i]
	}
}

// gainRow is the gain of one target for each coordinate; nil if there is none.
func gainRow(gain *Tensor, target, width int) []float32 {
	if gain == nil {
		return nil
	}
	if len(gain.shape) > 0 {
		return gain.singles(target*width, width)
	}
	row, value := make([]float32, width), gain.float32(0)
	for i := range row {
		row[i] = value
	}
	return row
}

// encode rounds a row to the dtype, to nearest, ties to even, and writes it.
func encode(dtype Dtype, data []byte, row []float32) {
	switch dtype {
	case BF16:
		for i, value := range row {
			binary.LittleEndian.PutUint16(data[2*i:], half.ToBF16(value))
		}
	case F16:
		for i, value := range row {
			binary.LittleEndian.PutUint16(data[2*i:], half.ToF16(value))
		}
	case F64:
		for i, value := range row {
			binary.LittleEndian.PutUint64(data[8*i:], math.Float64bits(float64(value)))
		}
	default:
		for i, value := range row {
			binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(value))
		}
	}
}

// room makes an empty product, unless it takes more than is allowed: small factors can have a product of any size.
func room(name string, dtype Dtype, shape []int, maxBytes int64) (*Tensor, error) {
	if maxBytes > wire.Addressable {
		maxBytes = wire.Addressable
	}
	needed := wire.Product(dtype.Size(), shape)
	if needed > uint64(maxBytes) {
		return nil, tooLarge(&wire.TooLargeError{Name: name, Needed: needed, Allowed: uint64(maxBytes)})
	}
	return &Tensor{dtype, shape, methods[name].dims, make([]byte, needed)}, nil
}

func checkAttn(came arrival) error {
	pattern, offered, gain := came["pattern"], came["value_out"], came["gain"]
	switch {
	case len(came) != present(pattern, offered, gain) || offered == nil:
		return badFactors("decomposed_attn", "a factor is unknown or missing")
	case len(pattern.shape) != 3 || !pattern.dtype.IsFloating():
		return badFactors("decomposed_attn", "pattern is not [head target source]")
	case len(offered.shape) != 3 || offered.dtype != F32 || offered.shape[0] != pattern.shape[2] ||
		offered.shape[1] != pattern.shape[0]:
		return badFactors("decomposed_attn", "value_out does not fit pattern")
	case gain != nil && !isGain(gain, pattern.shape[1], offered.shape[2]):
		return badFactors("decomposed_attn", "gain does not fit pattern and value_out")
	}
	return nil
}

func checkFfn(came arrival, outputs *Tensor) error {
	activations, gain, spans := came["activations"], came["gain"], came["spans"]
	switch {
	case len(came) != present(activations, gain, spans) || activations == nil:
		return badFactors("decomposed_ffn_out", "a factor is unknown or missing")
	case len(activations.shape) != 1 || !activations.dtype.IsFloating():
		return badFactors("decomposed_ffn_out", "activations are not [d_ffn]")
	case gain != nil && !isGain(gain, outputs.shape[1]):
		return badFactors("decomposed_ffn_out", "gain is neither a scalar nor [d_model]")
	}
	return nil
}

// isGain tells whether a factor is F32, and a scalar or of this shape.
func isGain(gain *Tensor, shape ...int) bool {
	if gain.dtype != F32 || (len(gain.shape) != 0 && len(gain.shape) != len(shape)) {
		return false
	}
	for axis, length := range gain.shape {
		if length != shape[axis] {
			return false
		}
	}
	return true
}

// spansOf gives (start, stop) of the neurons that are computed, in the order of their activations.
func spansOf(spans *Tensor, activations, count int) ([][2]int, error) {
	if spans == nil {
		if activations != count {
			return nil, badFactors("decomposed_ffn_out", "activations and output vectors differ in number")
		}
		return [][2]int{{0, count}}, nil
	}
	if spans.dtype != I64 || len(spans.shape) != 2 || spans.shape[1] != 2 || spans.shape[0] > count {
		return nil, badFactors("decomposed_ffn_out", "spans are not I64 pairs, or more than there are neurons")
	}
	found, sum := make([][2]int, spans.shape[0]), 0
	for i := range found {
		start, stop := spans.int64(2*i), spans.int64(2*i+1)
		if start < 0 || stop < start || stop > int64(count) {
			return nil, badFactors("decomposed_ffn_out", "a span is outside the neurons of the layer")
		}
		found[i] = [2]int{int(start), int(stop)}
		sum += int(stop - start)
	}
	if sum != activations || overlap(found) {
		return nil, badFactors("decomposed_ffn_out", "spans overlap, or are not those of the activations")
	}
	return found, nil
}

func overlap(spans [][2]int) bool {
	sorted := append([][2]int(nil), spans...)
	sort.Slice(sorted, func(a, b int) bool { return sorted[a][0] < sorted[b][0] })
	for i := 1; i < len(sorted); i++ {
		if sorted[i][0] < sorted[i-1][1] {
			return true
		}
	}
	return false
}

func present(tensors ...*Tensor) int {
	count := 0
	for _, tensor := range tensors {
		if tensor != nil {
			count++
		}
	}
	return count
}

func badFactors(name, what string) error {
	return failure(ErrInternal, "the factors of %s contradict each other: %s", name, what)
}
