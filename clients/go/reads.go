package transparentllm

import (
	"strings"

	"transparentllm.dev/go/internal/wire"
)

// Read names one value of a run, for Fetch and Open.
type Read struct {
	method  *method
	indices []int
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
	return Read{m, append([]int(nil), indices...)}, nil
}

func readOf(name string, indices ...int) Read { return Read{methods[name], indices} }

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

// arrival is what came for one read: the value under "", or its factors under their names.
type arrival map[string]*Tensor

// grouped sorts the tensors of a stream by reads: each begins with a value or with its first factor.
func grouped(names []string, tensors []wire.Tensor) ([]arrival, error) {
	var groups []arrival
	var begun []string
	for _, held := range tensors {
		name, factor, isFactor := strings.Cut(held.Header.Name, ".")
		m := methods[name]
		if !isFactor || (m != nil && len(m.parts) > 0 && factor == m.parts[0].name) {
			groups, begun = append(groups, arrival{}), append(begun, name)
		} else if len(begun) == 0 || begun[len(begun)-1] != name {
			return nil, failure(ErrInternal, "the server sent %q without the factors before it", held.Header.Name)
		}
		last := groups[len(groups)-1]
		if _, twice := last[factor]; twice || (isFactor && factor == "") {
			return nil, failure(ErrInternal, "the server sent %q twice for one value", held.Header.Name)
		}
		last[factor] = arrived(held)
	}
	if len(begun) != len(names) || strings.Join(begun, " ") != strings.Join(names, " ") {
		return nil, failure(ErrInternal, "the server sent %v, not %v as it was asked", begun, names)
	}
	return groups, nil
}
