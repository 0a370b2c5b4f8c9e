package transparentllm

import (
	"context"

	"google.golang.org/protobuf/reflect/protoreflect"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

// CompositionKind is what of a later head an earlier one can write to.
type CompositionKind = pb.CompositionKind

// The kinds. Default: ComposeKeys, as in Python.
const (
	ComposeQueries = pb.CompositionKind_COMPOSITION_KIND_Q
	ComposeKeys    = pb.CompositionKind_COMPOSITION_KIND_K
	ComposeValues  = pb.CompositionKind_COMPOSITION_KIND_V
)

// HeadCircuit is one of the two circuits of a head.
type HeadCircuit = pb.HeadCircuit

// The circuits: what a head writes of what it attends to, and what it attends to. Default: CircuitOV, as in Python.
const (
	CircuitOV = pb.HeadCircuit_HEAD_CIRCUIT_OV
	CircuitQK = pb.HeadCircuit_HEAD_CIRCUIT_QK
)

// HeadWeightsParts is what HeadWeights answers. Vectors of the residual stream are rows: a head reads x V, and writes attention
// times x V O.
type HeadWeightsParts struct {
	Q *Tensor // [d_model d_head], to its queries
	K *Tensor // [d_model d_head], to the keys that it reads, which heads may share
	V *Tensor // [d_model d_head], to the values that it reads, which heads may share
	O *Tensor // [d_head d_model], from these to the residual stream
}

// HeadWeights reads the weights of one head as the model has them: without biases, and gains of norms are not folded in.
// Works before any run.
//
// Errors of this and the two after it: ErrIndexOutOfRange; ErrNotSupported where the layer has no heads, or the server does not
// know circuits; ErrNotFound, MODEL_CHANGED, if another model than that of the current run is served under the name by now.
func (c *Client) HeadWeights(ctx context.Context, layer, head int, options ...ReadOption) (*HeadWeightsParts, error) {
	came, err := c.circuits(ctx, readOf("head_weights", layer, head), options)
	if err != nil {
		return nil, err
	}
	made := &HeadWeightsParts{came["q"], came["k"], came["v"], came["o"]}
	width := made.Q.shape[1]
	if made.K.shape[1] != width || made.V.shape[1] != width || made.O.shape[0] != width {
		return nil, failure(ErrInternal, "%s sent weights of one head that are not equally wide", c.calls.target)
	}
	return made, nil
}

// CompositionScores reads how much of what each head writes each later head reads: ||A B|| / (||A|| ||B||), where A is the OV
// circuit of the earlier one and B the QK circuit, or its transpose for keys, or the OV circuit of the later one. NaN where the
// first is not in an earlier layer. Slices of layers save their work. [layer head later_layer later_head] F32
func (c *Client) CompositionScores(ctx context.Context, kind CompositionKind, options ...ReadOption) (*Tensor, error) {
	if kind == pb.CompositionKind_COMPOSITION_KIND_UNSPECIFIED {
		kind = ComposeKeys
	}
	read := readOf("composition_scores")
	read.parameters = Parameters{"kind": kind}
	came, err := c.circuits(ctx, read, options)
	return came[""], err
}

// CopyingScores reads how much each head makes the tokens that it attends to more likely, or, of CircuitQK, attends to tokens
// that are the same as its own: sum(Re(e)) / sum(|e|) over the eigenvalues e of the circuit from tokens to tokens. 1: all are
// positive. [layer head] F32
func (c *Client) CopyingScores(ctx context.Context, circuit HeadCircuit, options ...ReadOption) (*Tensor, error) {
	if circuit == pb.HeadCircuit_HEAD_CIRCUIT_UNSPECIFIED {
		circuit = CircuitOV
	}
	read := readOf("copying_scores")
	read.parameters = Parameters{"circuit": circuit}
	came, err := c.circuits(ctx, read, options)
	return came[""], err
}

// circuits is one read of weights of heads, of the model that ran, or before any run of the one that is served.
func (c *Client) circuits(ctx context.Context, read Read, options []ReadOption) (arrival, error) {
	reading, err := readingOf(options, read.method)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.calls.timeout)
	defer cancel()
	feature := "circuits"
	if read.parameters["circuit"] == CircuitQK {
		feature = "matching_scores" // an older server would answer for the other circuit
	}
	if err := c.require(ctx, feature); err != nil {
		return nil, err
	}
	digest, model, err := c.served(ctx)
	if err != nil {
		return nil, err
	}
	made, known := modelRequest(read.method, reading)
	known.model = model
	if made.message, err = read.request(c.calls.model, made.options); err != nil {
		return nil, err
	}
	fields := made.message.ProtoReflect().Descriptor().Fields()
	made.message.ProtoReflect().Set(fields.ByName("model_digest"), protoreflect.ValueOfString(digest))
	tensors, err := c.calls.tensors(ctx, made, read.method.tensors(false), reading.progress)
	if err != nil {
		return nil, err
	}
	groups, err := grouped([]*method{read.method}, tensors)
	if err != nil {
		return nil, err
	}
	return groups[0], nil
}

// served is the model of the current run, or before any the one that would run; empty and nil where it was never loaded. One that
// is not served any more has no description.
func (c *Client) served(ctx context.Context) (digest string, model *pb.ModelDescription, err error) {
	if digest := c.digest(); digest != "" {
		model, err := c.description(ctx, digest)
		return digest, model, err
	}
	answer, err := c.ServerInfo(ctx)
	if err != nil {
		return "", nil, err
	}
	for _, model := range answer.Models {
		isMeant := model.GetInfo().GetName() == c.calls.model || (c.calls.model == "" && len(answer.Models) == 1)
		if isMeant && model.Digest != "" {
			return model.Digest, model, nil
		}
	}
	return "", nil, nil
}
