package transparentllm

import (
	"strings"

	pb "transparentllm.dev/go/transparent_llm/v1"
)

// expected is what is known of the tensors of a stream before they come, by the names of their methods. So whatever else
// a server sends is refused by its header.
type expected map[string]*expectation

// expectation is what is known of a value.
type expectation struct {
	method   *method
	reading  *reading
	run      *run                 // nil for a value of the model alone
	model    *pb.ModelDescription // nil where it is not known
	layer    int                  // of output vectors
	factored bool                 // whether its factors will do
}

// factorDims are the axes of each factor. A gain may be a scalar too.
var factorDims = map[string][]string{
	"decomposed_attn.pattern":        {"head", "target", "source"},
	"decomposed_attn.value_out":      {"source", "head", "d_model"},
	"decomposed_attn.gain":           {"target", "d_model"},
	"decomposed_ffn_out.activations": {"d_ffn"},
	"decomposed_ffn_out.gain":        {"d_model"},
	"decomposed_ffn_out.spans":       {"span", "bound"},
}

func (e expected) add(value *expectation) {
	if before := e[value.method.name]; before != nil {
		value.factored = value.factored || before.factored
	}
	e[value.method.name] = value
}

// check refuses a tensor that was not asked for, or that has other axes, another length or another type than it must.
func (e expected) check(head *pb.TensorHeader) error {
	name, factor, isFactor := strings.Cut(head.Name, ".")
	value := e[name]
	if value == nil || (isFactor && !value.factored) {
		return failure(ErrInternal, "the server sent %q, which was not asked for", head.Name)
	}
	dims := value.method.dims
	if isFactor {
		dims = factorDims[head.Name]
		if dims == nil {
			return failure(ErrInternal, "the server sent %q, which is not a factor of %s", head.Name, name)
		}
		if factor == "gain" && len(head.Dims) == 0 {
			dims = nil
		}
	}
	if strings.Join(head.Dims, " ") != strings.Join(dims, " ") || len(head.Dims) != len(dims) {
		return failure(ErrInternal, "the server sent %q with the axes %q, not %q", head.Name, head.Dims, dims)
	}
	if err := value.checkDtype(head, factor); err != nil {
		return err
	}
	return value.checkLengths(head)
}

func (e *expectation) checkDtype(head *pb.TensorHeader, factor string) error {
	dtype, wanted := Dtype(head.Dtype), "a floating type"
	isRight := dtype.IsFloating()
	switch {
	case factor == "spans" || (factor == "" && e.method.integers):
		isRight, wanted = dtype == I64, "I64"
	case factor != "" && factor != firstFactors[e.method.name]:
		isRight, wanted = dtype == F32, "F32"
	case factor == "" && e.reading.hasDtype:
		isRight, wanted = dtype == e.reading.dtype, e.reading.dtype.String()
	}
	if !isRight {
		return failure(ErrInternal, "the server sent %s as %v, not as %s", head.Name, dtype, wanted)
	}
	return nil
}

func (e *expectation) checkLengths(head *pb.TensorHeader) error {
	for axis, name := range head.Dims {
		length, known := e.length(name)
		if !known {
			continue
		}
		for _, part := range e.reading.of([]string{name}) {
			length = countOf(part, length)
		}
		if head.Shape[axis] != uint64(length) {
			return failure(ErrInternal, "the server sent %s with %d along %q, not %d", head.Name, head.Shape[axis], name, length)
		}
	}
	return nil
}

// length of a whole axis; false where it is not known. No call is made for it.
func (e *expectation) length(axis string) (int64, bool) {
	switch axis {
	case "bound":
		return 2, true
	case "batch":
		return e.ofRun(0)
	case "pos", "query_pos", "key_pos", "target", "source":
		return e.ofRun(1)
	case "d_ffn":
		if e.method.name != "neuron_outputs" {
			return 0, false // it depends on the layer, which is another one for each read
		}
		return int64(e.model.DFfn[e.layer]), true
	case "d_model":
		return int64(e.model.GetInfo().GetDModel()), e.model != nil
	case "d_vocab":
		return int64(e.model.GetInfo().GetDVocab()), e.model != nil
	}
	return 0, false
}

func (e *expectation) ofRun(axis int) (int64, bool) {
	if e.run == nil {
		return 0, false
	}
	return int64(e.run.tokens.shape[axis]), true
}
