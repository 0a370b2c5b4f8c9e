package transparentllm

import (
	"context"
	"testing"
	"time"

	pb "transparentllm.dev/go/transparent_llm/v1"
)

func TestLayersThatAreKeptDoNotWaitForADownload(t *testing.T) {
	kept, model := newWeights(&calls{config: config{weightsBytes: 8}}), &pb.ModelDescription{Digest: "digest", DFfn: []uint32{1, 1}}
	one, other := numbers(F32, []int{1, 1}, 1), numbers(F32, []int{1, 2}, 1, 2)
	kept.keep(layerKey{"digest", 0}, one)
	kept.turn <- struct{}{} // of another layer
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if got, err := kept.layer(ctx, model, 0); got != one || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	kept.keep(layerKey{"digest", 1}, other)
	if got := kept.find(layerKey{"digest", 0}); got != nil || kept.bytes != 8 {
		t.Errorf("%v is still kept, in %d bytes", got, kept.bytes)
	}
	if got := kept.find(layerKey{"digest", 1}); got != other {
		t.Errorf("%v is kept", got)
	}
}
