package transparentllm

import (
	"strconv"
	"strings"

	"transparentllm.dev/go/internal/wire"
)

// Read names one value of a run, for Fetch and Open.
type Read struct {
	method     *method
	indices    []int
	parameters Parameters
}

// NewRead is the read of the method of that name in snake case, for example NewRead("residual_in", 3). Indices that are
// missing at the end are left out: the server takes attention_output without a head, and refuses the others.
//
// Errors: ErrInvalidRequest: no value of a run has this name, or it has fewer indices.
func NewRead(name string, indices ...int) (Read, error) {
	m, ok := methods[name]
	if !ok || !m.ofRun || len(indices) > len(m.arguments) {
		return Read{}, failure(ErrInvalidRequest, "there is no %s%v to read of a run", name, indices)
	}
	return Read{method: m, indices: append([]int(nil), indices...)}, nil
}

// With is the same read with parameters besides those that it has.
//
// Errors: ErrInvalidRequest: its method has no parameter of such a name. What they are is looked at when it is asked for.
func (r Read) With(parameters Parameters) (Read, error) {
	all := Parameters{}
	for _, given := range []Parameters{r.parameters, parameters} {
		for name, value := range given {
			if r.method.parameter(name) == nil {
				return Read{}, failure(ErrInvalidRequest, "%s has no parameter %s", r.method.name, legible(name, 100)).because(
					"INVALID_REQUEST", "argument", name)
			}
			all[name] = value
		}
	}
	r.parameters = all
	return r, nil
}

func readOf(name string, indices ...int) Read { return Read{method: methods[name], indices: indices} }

// sizes of the axes whose length its parameters say. Where one stands for all of an axis, that of the whole.
func (r Read) sizes(whole func(axis string) (int64, bool)) map[string]int64 {
	found := map[string]int64{}
	for _, one := range r.method.parameters {
		if one.sizeOf == "" {
			continue
		}
		size, known := one.size(r.parameters[one.name])
		if !known {
			size, known = whole(one.sizeOf)
		}
		if known {
			found[one.sizeOf] = size
		}
	}
	return found
}

// requireOneTensor refuses a read of nothing, and one of several tensors where only one can be taken.
func (r Read) requireOneTensor(taker string) error {
	switch {
	case r.method == nil:
		return failure(ErrInvalidRequest, "an empty Read names nothing")
	case r.method.isParts():
		return failure(ErrInvalidRequest, "%s takes reads of one tensor, and %s is several: %s; FetchParts reads them", taker,
			r.method.name, r.method.partNames())
	}
	return nil
}

// methodsOf refuses reads of nothing.
func methodsOf(reads []Read) ([]*method, error) {
	wanted := make([]*method, len(reads))
	for i, read := range reads {
		if read.method == nil {
			return nil, failure(ErrInvalidRequest, "read %d is empty", i).because("INVALID_REQUEST", "item", strconv.Itoa(i))
		}
		wanted[i] = read.method
	}
	return wanted, nil
}

// Tokens reads token ids, padded on the right. [batch pos] I64
func Tokens() Read { return readOf("tokens") }

// Logits reads the model's output. [batch pos d_vocab]
func Logits() Read { return readOf("logits") }

// ResidualIn reads the residual stream as it enters a layer. [batch pos d_model]
func ResidualIn(layer int) Read { return readOf("residual_in", layer) }

// ResidualAfterAttn reads the residual stream after attention's output was added. [batch pos d_model]
func ResidualAfterAttn(layer int) Read { return readOf("residual_after_attn", layer) }

// ResidualOut reads the residual stream as it leaves a layer. [batch pos d_model]
func ResidualOut(layer int) Read { return readOf("residual_out", layer) }

// FfnOut reads what the feed-forward part added to the residual stream, bias included. [batch pos d_model]
func FfnOut(layer int) Read { return readOf("ffn_out", layer) }

// DecomposedFfnOut reads what each neuron added: activation times output vector. [hidden d_model]
func DecomposedFfnOut(batch, layer, pos int) Read {
	return readOf("decomposed_ffn_out", batch, layer, pos)
}

// NeuronActivations reads activations right after the activation function. [d_ffn]
func NeuronActivations(batch, layer, pos int) Read {
	return readOf("neuron_activations", batch, layer, pos)
}

// AttentionMatrix reads attention probabilities after softmax; a row is the position that attends. [query_pos key_pos]
func AttentionMatrix(batch, layer, head int) Read {
	return readOf("attention_matrix", batch, layer, head)
}

// AttentionOutput reads what the whole attention added to the residual stream, bias included. [d_model]
func AttentionOutput(batch, layer, pos int) Read {
	return readOf("attention_output", batch, layer, pos)
}

// AttentionOutputOfHead reads what one head added to the residual stream. [d_model]
func AttentionOutputOfHead(batch, layer, pos, head int) Read {
	return readOf("attention_output", batch, layer, pos, head)
}

// DecomposedAttn reads what each source position gave each target position through each head. [target source head d_model]
func DecomposedAttn(batch, layer int) Read { return readOf("decomposed_attn", batch, layer) }

// arrival is what came for one read: the value under "", or its factors or parts under their names.
type arrival map[string]*Tensor

// grouped sorts the tensors of a stream by values: each begins with the value itself, or with the first of its parts, which
// come in their order.
func grouped(wanted []*method, tensors []wire.Tensor) ([]arrival, error) {
	var groups []arrival
	place := -1 // of the last tensor among the parts of its value
	for _, held := range tensors {
		name, part, isPart := strings.Cut(held.Header.Name, ".")
		if last := len(groups) - 1; isPart && place >= 0 && wanted[last].name == name && wanted[last].place(part) > place {
			place = wanted[last].place(part)
			groups[last][part] = arrived(held)
			continue
		}
		if len(groups) == len(wanted) || !wanted[len(groups)].begins(name, part, isPart) {
			return nil, failure(ErrInternal, "the server sent %q after %d of the %d values that were asked for", held.Header.Name,
				len(groups), len(wanted))
		}
		place = wanted[len(groups)].place(part)
		groups = append(groups, arrival{part: arrived(held)})
	}
	if len(groups) != len(wanted) {
		return nil, failure(ErrInternal, "the server sent %d values, not the %d that were asked for", len(groups), len(wanted))
	}
	for i, came := range groups {
		if err := wanted[i].checkWhole(came); err != nil {
			return nil, err
		}
	}
	return groups, nil
}

// begins tells whether its value can begin with a tensor of this name.
func (m *method) begins(name, part string, isPart bool) bool {
	if name != m.name {
		return false
	}
	return (isPart && m.place(part) == 0) || (!isPart && !m.isParts())
}

// checkWhole refuses parts of which one is missing.
func (m *method) checkWhole(came arrival) error {
	if came[""] != nil {
		return nil
	}
	for _, part := range m.parts {
		if !part.optional && came[part.name] == nil {
			return failure(ErrInternal, "the server sent %s without its part %s", m.name, part.name)
		}
	}
	return nil
}
