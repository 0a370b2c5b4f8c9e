package transparentllm

import (
	"context"

	pb "transparentllm.dev/go/transparent_llm/v1"
)

// Logits reads the model's output, after whatever scaling or capping the model itself applies to it. [batch pos d_vocab]
//
// Errors of this and all reads of a run: ErrNotRun before the first Run; ErrIndexOutOfRange; ErrNotSupported where the
// model has no such value; ErrTooLarge for a value over WithMaxBytes or over what the server sends.
func (c *Client) Logits(ctx context.Context, options ...ReadOption) (*Tensor, error) {
	return c.read(ctx, Logits(), options)
}

// ResidualIn reads the residual stream as it enters a layer. [batch pos d_model]
func (c *Client) ResidualIn(ctx context.Context, layer int, options ...ReadOption) (*Tensor, error) {
	return c.read(ctx, ResidualIn(layer), options)
}

// ResidualAfterAttn reads the residual stream after attention's output was added. [batch pos d_model]
func (c *Client) ResidualAfterAttn(ctx context.Context, layer int, options ...ReadOption) (*Tensor, error) {
	return c.read(ctx, ResidualAfterAttn(layer), options)
}

// ResidualOut reads the residual stream as it leaves a layer. [batch pos d_model]
func (c *Client) ResidualOut(ctx context.Context, layer int, options ...ReadOption) (*Tensor, error) {
	return c.read(ctx, ResidualOut(layer), options)
}

// FfnOut reads what the feed-forward part added to the residual stream, bias included. [batch pos d_model]
func (c *Client) FfnOut(ctx context.Context, layer int, options ...ReadOption) (*Tensor, error) {
	return c.read(ctx, FfnOut(layer), options)
}

// DecomposedFfnOut reads what each neuron added: activation times output vector. [hidden d_model]
//
// The output vectors of the layer are fetched once and kept, within WithWeightsBytes; the product is made here, to the
// same bits. Errors: ErrNotFound, MODEL_CHANGED, if another model is served under the name by now.
func (c *Client) DecomposedFfnOut(ctx context.Context, batch, layer, pos int, options ...ReadOption) (*Tensor, error) {
	return c.read(ctx, DecomposedFfnOut(batch, layer, pos), options)
}

// NeuronActivations reads activations right after the activation function. [d_ffn]
func (c *Client) NeuronActivations(ctx context.Context, batch, layer, pos int, options ...ReadOption) (*Tensor, error) {
	return c.read(ctx, NeuronActivations(batch, layer, pos), options)
}

// AttentionMatrix reads attention probabilities after softmax; a row is the position that attends. [query_pos key_pos]
func (c *Client) AttentionMatrix(ctx context.Context, batch, layer, head int, options ...ReadOption) (*Tensor, error) {
	return c.read(ctx, AttentionMatrix(batch, layer, head), options)
}

// AttentionOutput reads what the whole attention added to the residual stream, bias included. [d_model]
func (c *Client) AttentionOutput(ctx context.Context, batch, layer, pos int, options ...ReadOption) (*Tensor, error) {
	return c.read(ctx, AttentionOutput(batch, layer, pos), options)
}

// AttentionOutputOfHead reads what one head added to the residual stream. [d_model]
func (c *Client) AttentionOutputOfHead(ctx context.Context, batch, layer, pos, head int, options ...ReadOption) (*Tensor, error) {
	return c.read(ctx, AttentionOutputOfHead(batch, layer, pos, head), options)
}

// DecomposedAttn reads what each source position gave each target position through each head. [target source head d_model]
//
// Its factors travel and the product is made here, to the same bits.
func (c *Client) DecomposedAttn(ctx context.Context, batch, layer int, options ...ReadOption) (*Tensor, error) {
	return c.read(ctx, DecomposedAttn(batch, layer), options)
}

// NeuronOutput reads the raw output weight vector of a neuron. [d_model] Works before any run.
//
// Errors: ErrIndexOutOfRange; ErrNotSupported where the layer has no neurons.
func (c *Client) NeuronOutput(ctx context.Context, layer, neuron int, options ...ReadOption) (*Tensor, error) {
	m := methods["neuron_output"]
	reading, err := readingOf(options, m)
	if err != nil {
		return nil, err
	}
	made, _ := modelRequest(m, reading)
	if made.message, err = readOf(m.name, layer, neuron).request(c.calls.model, made.options); err != nil {
		return nil, err
	}
	return c.calls.tensor(ctx, made, reading.progress)
}

// Unembed projects a vector of the residual stream, [d_model] of a floating type, to the vocabulary, [vocab], or each row of
// a matrix [n d_model], which gives [n vocab]. With normalize the final norm and the model's own post-processing of logits are
// applied, so that the last layer's output gives the model's output; otherwise it is the plain product with the unembedding
// matrix. Works before any run.
//
// Errors: ErrInvalidRequest, INVALID_SHAPE or INVALID_DTYPE, for another tensor.
func (c *Client) Unembed(ctx context.Context, vector *Tensor, normalize bool, options ...ReadOption) (*Tensor, error) {
	m := methods["unembed"]
	reading, err := readingOf(options, m)
	if err != nil {
		return nil, err
	}
	sent := &pb.Tensor{Dtype: pb.Dtype(vector.dtype), Data: vector.data}
	for _, length := range vector.shape {
		sent.Shape = append(sent.Shape, uint64(length))
	}
	made, known := modelRequest(m, reading)
	if len(vector.shape) == 2 {
		known.rows = vector.shape[0]
	}
	made.message = &pb.UnembedRequest{Model: c.calls.model, T: sent, Normalize: normalize, Options: made.options}
	return c.calls.tensor(ctx, made, reading.progress)
}

// read is one value of the current run, of one tensor.
func (c *Client) read(ctx context.Context, read Read, options []ReadOption) (*Tensor, error) {
	came, err := c.readParts(ctx, read, options)
	if err != nil {
		return nil, err
	}
	return came[""], nil
}

// readParts is one value of the current run: its tensor under "", or its parts under their names.
func (c *Client) readParts(ctx context.Context, read Read, options []ReadOption) (arrival, error) {
	reading, err := readingOf(options, read.method)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.calls.timeout)
	defer cancel()
	var value arrival
	err = c.ofRun(ctx, func(held *run) error {
		key, err := c.keyOf(ctx, held, read, reading)
		if err != nil {
			return err
		}
		if came := c.kept.find(key); came != nil {
			value, err = c.value(ctx, held, read, true, came)
			return err
		}
		factored, err := c.multiplies(ctx, held, read, reading)
		if err != nil {
			return err
		}
		made, err := c.requestOf(held, read, reading, factored)
		if err != nil {
			return err
		}
		tensors, err := c.calls.tensors(ctx, made, read.method.tensors(factored), reading.progress)
		if err != nil {
			return err
		}
		groups, err := grouped([]*method{read.method}, tensors)
		if err != nil {
			return err
		}
		if value, err = c.value(ctx, held, read, factored, groups[0]); err == nil {
			c.kept.keep(key, groups[0])
		}
		return err
	})
	return value, err
}

// modelRequest asks for one value of the model, in a message that is still to be made.
func modelRequest(m *method, reading *reading) (request, *expectation) {
	known := &expectation{method: m, reading: reading}
	return request{rpc: m.rpc, options: reading.options(m, false), expected: expected{m.name: known}}, known
}

// requestOf asks for one value of a run.
func (c *Client) requestOf(held *run, read Read, reading *reading, factored bool) (request, error) {
	options, known := reading.options(read.method, factored), expected{}
	known.add(c.expect(held, read, reading, factored))
	message, err := read.request(held.id, options)
	return request{read.method.rpc, message, options, held.key, known}, err
}

func (c *Client) expect(held *run, read Read, reading *reading, factored bool) *expectation {
	made := &expectation{method: read.method, reading: reading, run: held, model: c.described(held.digest), factored: factored}
	if sizes := read.sizes(made.length); len(sizes) > 0 {
		made.sizes = append(made.sizes, sizes)
	}
	return made
}

// value is what came for a read: itself or its parts, or the product of its factors, if they were asked for.
func (c *Client) value(ctx context.Context, held *run, read Read, factored bool, came arrival) (arrival, error) {
	if came[""] != nil || read.method.isParts() {
		return came, nil
	}
	if !factored {
		return nil, failure(ErrInternal, "%s sent factors of %s that were not asked for", c.calls.target, read.method.name)
	}
	product, err := c.product(ctx, held, read, came)
	if err != nil {
		return nil, FromError(err, c.calls.target) // perhaps the context's
	}
	return arrival{"": product}, nil
}

func (c *Client) product(ctx context.Context, held *run, read Read, came arrival) (*Tensor, error) {
	if read.method.weights == "" {
		return attnProduct(ctx, came, c.calls.maxBytes)
	}
	model, err := c.description(ctx, held.digest)
	if err != nil {
		return nil, err
	}
	if model == nil {
		return nil, failure(ErrNotSupported, "the server that had this run's model is gone; run it again")
	}
	outputs, err := c.weights.layer(ctx, model, read.indices[1])
	if err != nil {
		return nil, err
	}
	return ffnProduct(ctx, came, outputs, c.calls.maxBytes)
}

// multiplies tells whether the value comes as factors: where it has some and, for neurons, where the weights are or will
// be kept.
func (c *Client) multiplies(ctx context.Context, held *run, read Read, reading *reading) (bool, error) {
	m := read.method
	if len(m.parts) == 0 || m.isParts() || len(reading.of(m.dims)) > 0 || reading.hasDtype {
		return false, nil
	}
	if m.weights == "" || len(read.indices) < len(m.arguments) {
		return m.weights == "", nil
	}
	model, err := c.description(ctx, held.digest)
	if err != nil || model == nil || !c.has("neuron_outputs") {
		return false, err
	}
	return c.weights.keeps(model, read.indices[1]), nil
}
