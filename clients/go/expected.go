package transparentllm

import (
	"reflect"
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
	rows     int                  // vectors that it was asked of at once; 0: one, without an axis of its own
	sizes    []map[string]int64   // of axes whose length parameters say, in each read of the stream that asks for it
}

// rowsAxis comes before the axes of a method that was asked of several vectors at once.
const rowsAxis = "n"

// dims are the axes of the value.
func (e *expectation) dims() []string {
	if e.rows > 0 {
		return append([]string{rowsAxis}, e.method.dims...)
	}
	return e.method.dims
}

func (e expected) add(value *expectation) {
	all := *value
	if before := e[value.method.name]; before != nil {
		all.factored = value.factored || before.factored
		all.sizes = before.sizes
		for _, sizes := range value.sizes {
			if !hasSizes(before.sizes, sizes) {
				all.sizes = append(all.sizes, sizes)
			}
		}
	}
	e[value.method.name] = &all
}

func hasSizes(all []map[string]int64, wanted map[string]int64) bool {
	for _, sizes := range all {
		if reflect.DeepEqual(sizes, wanted) {
			return true
		}
	}
	return false
}

// check refuses a tensor that was not asked for, or that has other axes, another length or another type than it must.
func (e expected) check(head *pb.TensorHeader) error {
	name, partName, isPart := strings.Cut(head.Name, ".")
	value := e[name]
	if value == nil || (isPart && !value.factored && !value.method.isParts()) || (!isPart && value.method.isParts()) {
		return failure(ErrInternal, "the server sent %q, which was not asked for", head.Name)
	}
	dims, part := value.dims(), (*part)(nil)
	if isPart {
		if part = value.method.part(partName); part == nil {
			return failure(ErrInternal, "the server sent %q, which is not a part of %s", head.Name, name)
		}
		if dims = part.dims; part.optional && part.dtype.IsFloating() && len(head.Dims) == 0 {
			dims = nil
		}
	}
	if strings.Join(head.Dims, " ") != strings.Join(dims, " ") || len(head.Dims) != len(dims) {
		return failure(ErrInternal, "the server sent %q with the axes %q, not %q", head.Name, head.Dims, dims)
	}
	if len(head.Shape) != len(dims) {
		return failure(ErrInternal, "the server sent %q with %d lengths for %d axes", head.Name, len(head.Shape), len(dims))
	}
	if err := value.checkDtype(head, part); err != nil {
		return err
	}
	return value.checkLengths(head, part)
}

// continues tells whether a tensor is a further part of the value that the one before is of, whose size is that of all.
func (e expected) continues(before, head *pb.TensorHeader) bool {
	name, part, _ := strings.Cut(head.Name, ".")
	value := e[name]
	return value != nil && value.method.isParts() && value.method.place(part) > 0 && strings.HasPrefix(before.Name, name+".")
}

func (e *expectation) checkDtype(head *pb.TensorHeader, part *part) error {
	dtype, exact := Dtype(head.Dtype), e.method.dtype
	if exact == 0 && e.reading.hasDtype {
		exact = e.reading.dtype
	}
	if part != nil && part.dtype != 0 {
		exact = part.dtype
	}
	isRight, wanted := dtype.IsFloating(), "a floating type"
	if exact != 0 {
		isRight, wanted = dtype == exact, exact.String()
	}
	if !isRight {
		return failure(ErrInternal, "the server sent %s as %v, not as %s", head.Name, dtype, wanted)
	}
	return nil
}

func (e *expectation) checkLengths(head *pb.TensorHeader, part *part) error {
	for axis, name := range head.Dims {
		length, known := e.length(name)
		if ofRead, isSized := e.sized(name, head.Shape[axis]); isSized {
			length, known = ofRead, true
		}
		if !known {
			continue
		}
		length = e.cut(name, length)
		isShorter := part != nil && part.sparse && axis == 0 && head.Shape[axis] < uint64(length)
		if head.Shape[axis] != uint64(length) && !isShorter {
			return failure(ErrInternal, "the server sent %s with %d along %q, not %d", head.Name, head.Shape[axis], name, length)
		}
	}
	return nil
}

// cut is what is left of a length by the slices of the call.
func (e *expectation) cut(axis string, length int64) int64 {
	for _, part := range e.reading.of([]string{axis}) {
		length = countOf(part, length)
	}
	return length
}

// sized is the length that a read says of an axis: that which was sent, if any of the reads does; false if none says one.
func (e *expectation) sized(axis string, sent uint64) (length int64, isSized bool) {
	for _, sizes := range e.sizes {
		if size, ok := sizes[axis]; ok {
			if length, isSized = size, true; uint64(e.cut(axis, size)) == sent {
				return length, true
			}
		}
	}
	return length, isSized
}

// checkCame refuses tensors that are as long as another read of the same method says.
func (e *expectation) checkCame(came arrival) error {
	for name, tensor := range came {
		for axis, length := range tensor.shape {
			size, isSized := e.sized(tensor.dims[axis], uint64(length))
			if isSized && e.cut(tensor.dims[axis], size) != int64(length) {
				return failure(ErrInternal, "the server sent %s of %s with %d along %q, not %d", name, e.method.name, length,
					tensor.dims[axis], e.cut(tensor.dims[axis], size))
			}
		}
	}
	return nil
}

// length of a whole axis; false where it is not known. No call is made for it.
func (e *expectation) length(axis string) (int64, bool) {
	switch axis {
	case "bound":
		return 2, true
	case rowsAxis:
		return int64(e.rows), e.rows > 0
	case "batch":
		return e.ofRun(0)
	case "pos", "query_pos", "key_pos", "target", "source":
		return e.ofRun(1)
	case "d_ffn":
		if e.method.name != "neuron_outputs" {
			return 0, false // it depends on the layer, which is another one for each read
		}
		return int64(e.model.DFfn[e.layer]), true
	case "layer", "later_layer":
		return int64(e.model.GetInfo().GetNLayers()), e.model != nil
	case "head", "later_head":
		return int64(e.model.GetInfo().GetNHeads()), e.model != nil
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
