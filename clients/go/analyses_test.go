package transparentllm

import (
	"context"
	"errors"
	"math"
	"testing"

	pb "transparentllm.dev/go/transparent_llm/v1"
)

// ofNeurons are the parts of NeuronContributions with so many neurons.
func ofNeurons(ids, values uint64) []*pb.TensorChunk {
	return []*pb.TensorChunk{neuronPart("ids", I64, ids), neuronPart("values", F32, values), neuronPart("residual", F32)}
}

func neuronPart(name string, dtype Dtype, shape ...uint64) *pb.TensorChunk {
	made := ofPart(name, dtype, shape...)
	made.Header.Name, made.Header.Dims = "neuron_contributions."+name, []string{"rank"}[:len(shape)]
	return made
}

func TestAParameterSaysHowLongAnAxisIs(t *testing.T) {
	two := NeuronContributions(0, 1, 1, NeuronContributionOptions{K: 2})
	three := NeuronContributions(0, 2, 1, NeuronContributionOptions{K: 3})
	both := append(ofNeurons(2, 2), ofNeurons(3, 3)...)
	for name, each := range map[string]struct {
		reads   []Read
		chunks  []*pb.TensorChunk
		isRight bool
	}{
		"as asked":             {[]Read{two}, ofNeurons(2, 2), true},
		"more":                 {[]Read{two}, ofNeurons(3, 3), false},
		"less":                 {[]Read{two}, ofNeurons(1, 1), false},
		"one part less":        {[]Read{two}, ofNeurons(2, 1), false},
		"two reads":            {[]Read{two, three}, both, true},
		"in another order":     {[]Read{three, two}, both, false},
		"one as another's":     {[]Read{two, three}, append(ofNeurons(2, 2), ofNeurons(3, 2)...), false},
		"as none of the reads": {[]Read{two, three}, append(ofNeurons(2, 2), ofNeurons(4, 4)...), false},
	} {
		got, err := (&sender{chunks: each.chunks}).client(t).FetchParts(context.Background(), each.reads)
		if each.isRight && (err != nil || got[0]["ids"].Len() != 2) || !each.isRight && !errors.Is(err, ErrInternal) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestAnEmptyListOfPositionsStandsForAllOfThem(t *testing.T) {
	whole := func(string) (int64, bool) { return 5, true }
	all, some := LayerLens(0, 1, LensOptions{K: 2}).sizes(whole), LayerLens(0, 1, LensOptions{Positions: []int{-1}, TokenIDs: []int{4, 5}}).sizes(whole)
	for axis, wanted := range map[string][2]int64{"pos": {5, 1}, "rank": {2, 0}, "bottom_rank": {0, 0}, "token": {0, 2}} {
		if got := [2]int64{all[axis], some[axis]}; got != wanted {
			t.Errorf("%s: %v, not %v", axis, got, wanted)
		}
	}
}

func TestParametersByTheirNames(t *testing.T) {
	read, err := NewRead("contribution_edges", 0, 1)
	if err == nil {
		read, err = read.With(Parameters{"threshold": 0.5, "renormalize": true, "norm": "l2"})
	}
	if err != nil {
		t.Fatal(err)
	}
	made, err := read.request("run", &pb.TensorOptions{})
	asked, _ := made.(*pb.ContributionEdgesRequest)
	if err != nil || asked.GetThreshold() != 0.5 || !asked.GetRenormalize() || asked.GetNorm() != NormL2 {
		t.Errorf("%v, %v", made, err)
	}
	if got, err := read.With(Parameters{"k": 1}); !errors.Is(err, ErrInvalidRequest) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestParametersThatCannotBe(t *testing.T) {
	for name, each := range map[string]struct {
		given Parameters
		class error
	}{
		"no choice":       {Parameters{"point": "middle"}, ErrInvalidRequest},
		"another's":       {Parameters{"point": NormL2}, ErrInvalidRequest},
		"no list":         {Parameters{"positions": 3}, ErrInvalidRequest},
		"too long a list": {Parameters{"positions": make([]int, 4097)}, ErrTooLarge},
		"too large in it": {Parameters{"token_ids": []int{math.MaxInt32 + 1}}, ErrInvalidRequest},
		"negative":        {Parameters{"k": -1}, ErrInvalidRequest},
		"too large":       {Parameters{"k": math.MaxUint32 + 1}, ErrInvalidRequest},
		"no number":       {Parameters{"k": "5"}, ErrInvalidRequest},
		"no bool":         {Parameters{"with_kl": 1}, ErrInvalidRequest},
	} {
		read, err := LayerLens(0, 0, LensOptions{}).With(each.given)
		if err == nil {
			_, err = read.request("run", &pb.TensorOptions{})
		}
		if !errors.Is(err, each.class) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
