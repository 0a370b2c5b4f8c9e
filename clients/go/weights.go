package transparentllm

import (
	"context"

	pb "transparentllm.dev/go/transparent_llm/v1"
)

// weights are the output vectors of neurons, kept under the model's digest: they never change. The least recently used
// layers go first. Shared by a client and its copies; nobody writes to them.
type weights struct {
	calls *calls
	// turn has one place: one download of a layer is enough for all goroutines.
	turn chan struct{}
	kept *lru[layerKey, *Tensor]
}

type layerKey struct {
	digest string
	layer  int
}

func newWeights(calls *calls) *weights {
	return &weights{calls: calls, turn: make(chan struct{}, 1), kept: newLRU[layerKey, *Tensor](calls.weightsBytes)}
}

// keeps tells whether the output vectors of a layer can be kept; of a layer that does not exist the server says so.
func (w *weights) keeps(model *pb.ModelDescription, layer int) bool {
	if layer < 0 || layer >= len(model.DFfn) {
		return false
	}
	size := Dtype(model.Dtype).Size()
	if size == 0 {
		size = F32.Size()
	}
	needed := float64(model.DFfn[layer]) * float64(model.GetInfo().GetDModel()) * float64(size)
	return needed > 0 && needed <= float64(w.calls.weightsBytes) && needed <= float64(w.calls.maxBytes)
}

// layer gives the output vectors of all neurons of a layer [d_ffn d_model], fetched once.
func (w *weights) layer(ctx context.Context, model *pb.ModelDescription, layer int) (*Tensor, error) {
	key := layerKey{model.Digest, layer}
	if outputs, isKept := w.kept.find(key); isKept {
		return outputs, nil
	}
	select {
	case w.turn <- struct{}{}:
		defer func() { <-w.turn }()
	case <-ctx.Done():
		return nil, w.calls.failed(ctx, nil, ctx.Err())
	}
	if outputs, isKept := w.kept.find(key); isKept {
		return outputs, nil // of who had the turn before
	}
	outputs, err := w.fetch(ctx, model, layer)
	if err != nil {
		return nil, err
	}
	w.kept.keep(key, outputs, int64(len(outputs.data)))
	return outputs, nil
}

func (w *weights) fetch(ctx context.Context, model *pb.ModelDescription, layer int) (*Tensor, error) {
	if layer >= len(model.DFfn) {
		return nil, failure(ErrInternal, "%s now describes its model with %d layers", w.calls.target, len(model.DFfn))
	}
	m, options := methods["neuron_outputs"], &pb.TensorOptions{}
	number := int32(layer)
	message := &pb.NeuronOutputsRequest{Model: model.GetInfo().GetName(), Layer: &number, ModelDigest: model.Digest, Options: options}
	known := expected{m.name: {method: m, reading: &reading{}, model: model, layer: layer}}
	return w.calls.tensor(ctx, request{rpc: m.rpc, message: message, options: options, expected: known}, nil)
}
