package transparentllm

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

func TestLayersThatAreKeptDoNotWaitForADownload(t *testing.T) {
	kept, model := newWeights(&calls{config: config{weightsBytes: 8, maxBytes: 8}}), &pb.ModelDescription{Digest: "digest", DFfn: []uint32{1, 1}}
	one, other := numbers(F32, []int{1, 1}, 1), numbers(F32, []int{1, 2}, 1, 2)
	kept.kept.keep(layerKey{"digest", 0}, one, 4)
	kept.turn <- struct{}{} // of another layer
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if got, err := kept.layer(ctx, model, 0); got != one || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	kept.kept.keep(layerKey{"digest", 1}, other, 8)
	if got, isKept := kept.kept.find(layerKey{"digest", 0}); isKept || kept.kept.bytes != 8 {
		t.Errorf("%v is still kept, in %d bytes", got, kept.kept.bytes)
	}
	if got, _ := kept.kept.find(layerKey{"digest", 1}); got != other {
		t.Errorf("%v is kept", got)
	}
}

// outputs is a server that sends [2 width] as the output vectors of every layer.
type outputs struct {
	pb.UnimplementedTransparentLlmServiceServer
	width int
}

func (o *outputs) NeuronOutputs(_ *pb.NeuronOutputsRequest, stream pb.TransparentLlmService_NeuronOutputsServer) error {
	head := &pb.TensorHeader{Name: "neuron_outputs", Dtype: pb.Dtype_DTYPE_F32, Shape: []uint64{2, uint64(o.width)},
		Dims: []string{"d_ffn", "d_model"}, TotalBytes: uint64(8 * o.width), Etag: "etag"}
	return stream.Send(&pb.TensorChunk{Header: head, Data: make([]byte, 8*o.width)})
}

func TestOutputVectorsHaveTheShapeOfTheModel(t *testing.T) {
	model := &pb.ModelDescription{Digest: "digest", DFfn: []uint32{2, 3}, Info: &pb.ModelInfo{Name: "demo", DModel: 3}}
	for _, c := range []struct {
		width, layer int
		fits         bool
	}{{3, 0, true}, {2, 0, false}, {4, 0, false}, {3, 1, false}} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer()
		pb.RegisterTransparentLlmServiceServer(server, &outputs{width: c.width})
		go server.Serve(listener)
		t.Cleanup(server.Stop)
		llm, err := Dial(listener.Addr().String(), WithTimeout(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { llm.Close() })
		got, err := llm.weights.layer(context.Background(), model, c.layer)
		if c.fits != (err == nil) || (!c.fits && !errors.Is(err, ErrInternal)) {
			t.Errorf("%d wide, layer %d: %v, %v", c.width, c.layer, got, err)
		}
	}
}
