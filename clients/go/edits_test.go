package transparentllm_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	transparentllm "transparentllm.dev/go"
	pb "transparentllm.dev/go/transparent_llm/v1"
)

// short names of what is written often.
type (
	edit   = transparentllm.Edit
	client = transparentllm.Client
)

var (
	at       = transparentllm.AtResidualIn
	all      = transparentllm.AllPositions
	unedited = [][]int64{{1, 2, 3, 4, 5}, {9, 8, 7}}
	ofOthers = [][]int64{{11, 12, 13, 14, 15}, {19, 18, 17}}
)

// keeper makes runs whose values nobody reads: it names them by what was sent, and has only those that were not released.
type keeper struct {
	pb.UnimplementedTransparentLlmServiceServer
	features []string
	more     int // effects than there are edits

	mutex sync.Mutex
	held  map[string]bool
	asked []*pb.RunRequest
}

func (k *keeper) ServerInfo(context.Context, *pb.ServerInfoRequest) (*pb.ServerInfoResponse, error) {
	return &pb.ServerInfoResponse{Features: k.features}, nil
}

func (k *keeper) Run(_ context.Context, request *pb.RunRequest) (*pb.RunResponse, error) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	k.asked = append(k.asked, request)
	for _, edit := range request.Edits {
		if id := edit.GetPatch().GetRunId(); id != "" && !k.held[id] {
			return nil, refusal(codes.NotFound, "RUN_NOT_FOUND", map[string]string{"run_id": id})
		}
	}
	sent, err := proto.MarshalOptions{Deterministic: true}.Marshal(request)
	if err != nil {
		return nil, err
	}
	answer := aRun("model")
	answer.RunId = digestOf(string(sent))
	k.held[answer.RunId] = true
	answer.Effects = make([]*pb.EditEffect, len(request.Edits)+k.more)
	for i := range answer.Effects {
		answer.Effects[i] = &pb.EditEffect{Edit: strings.Repeat("x", 2000)}
	}
	return answer, nil
}

func (k *keeper) ReleaseRun(_ context.Context, request *pb.ReleaseRunRequest) (*pb.ReleaseRunResponse, error) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	delete(k.held, request.RunId)
	return &pb.ReleaseRunResponse{}, nil
}

func (k *keeper) client(t *testing.T, options ...transparentllm.Option) *client {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k.held = map[string]bool{}
	server := grpc.NewServer()
	pb.RegisterTransparentLlmServiceServer(server, k)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return dial(t, listener.Addr().String(), options...)
}

func edited(t *testing.T, llm *client, edits ...edit) {
	t.Helper()
	if err := llm.RunTokens(background, [][]int64{{7}}, transparentllm.Edits(edits...)); err != nil {
		t.Fatal(err)
	}
}

func TestAnEditThatIsNotWholeIsNeverSent(t *testing.T) {
	k := &keeper{features: []string{"edits"}}
	llm := k.client(t)
	nothing := llm.Copy()
	edited(t, llm)
	inf, nan := math.Inf(1), math.NaN()
	v := transparentllm.Literal([]float32{1, 2})
	deep := transparentllm.Unembedding(1)
	for i := 0; i < 9; i++ {
		deep = deep.Minus(transparentllm.Unembedding(2))
	}
	wide, _ := transparentllm.NewTensor(transparentllm.F32, []int{1, 1, 1}, make([]byte, 4))
	whole, _ := transparentllm.NewTensor(transparentllm.I32, []int{1}, make([]byte, 4))
	for words, wrong := range map[string]edit{
		"an edit is absent":                            {},
		"this one has none":                            transparentllm.Zero(transparentllm.Site{}, all()),
		"residual_in(3) says nothing of positions":     transparentllm.Zero(at(3), transparentllm.Selection{}),
		"positions is empty":                           transparentllm.Zero(at(0), transparentllm.Positions()),
		"positions names 2 twice":                      transparentllm.Zero(at(0), transparentllm.Positions(2, 1, 2)),
		"rows is empty":                                transparentllm.Zero(at(0), all().OfRows()),
		"rows names 0 twice":                           transparentllm.Zero(at(0), all().OfRows(0, 0)),
		"layer 2147483648 does not fit":                transparentllm.Zero(at(1<<31), all()),
		"head -2147483649 does not fit":                transparentllm.Zero(transparentllm.AtHead(0, -1<<31-1), all()),
		"neurons is empty":                             transparentllm.Zero(transparentllm.AtNeurons(0), all()),
		"factor is NaN":                                transparentllm.Scale(at(0), nan, all()),
		"factor is +Inf":                               transparentllm.Add(at(0), v, inf, all()),
		"a vector of an edit is absent":                transparentllm.SetTo(at(0), transparentllm.Vector{}, all()),
		"not finite: the first is element 1":           transparentllm.SetTo(at(0), transparentllm.Literal([]float32{1, float32(nan)}), all()),
		"got F32 of shape [0]":                         transparentllm.SetTo(at(0), transparentllm.Literal(nil), all()),
		"got F32 of shape [1 1 1]":                     transparentllm.SetTo(at(0), transparentllm.LiteralOf(wide), all()),
		"got I32 of shape [1]":                         transparentllm.SetTo(at(0), transparentllm.LiteralOf(whole), all()),
		"got nil":                                      transparentllm.SetTo(at(0), transparentllm.LiteralOf(nil), all()),
		"is 9 differences deep, at most 8":             transparentllm.SetTo(at(0), deep, all()),
		"clamp between 2 and 1":                        transparentllm.Clamp(at(0), v, 2, 1, all()),
		"clamp between NaN and 1":                      transparentllm.Clamp(at(0), v, nan, 1, all()),
		"sd is -1: a standard deviation is 0 or more":  transparentllm.Noise(at(0), -1, 0, all()),
		"sd is +Inf: it must be finite":                transparentllm.Noise(at(0), inf, 0, all()),
		"with a current run, got nil":                  transparentllm.Mean(at(0), nil, all()),
		"values are taken from has run nothing yet":    transparentllm.Patch(at(0), nothing, all()),
		"FromPositions has 1 entries, but what is":     transparentllm.Patch(at(0), llm, all(), transparentllm.FromPositions(1)),
		"FromRows has 2 entries for 1 that are":        transparentllm.Patch(at(0), llm, all().OfRows(0), transparentllm.FromRows(1, 2)),
		"row or pos 4294967296 does not fit":           transparentllm.SetTo(at(0), transparentllm.ValueOf(at(0), llm, 1<<32, 0), all()),
		"an edit is at a site such as AtResidualOut(3": transparentllm.SetTo(at(0), transparentllm.ValueOf(transparentllm.Site{}, llm, 0, 0), all()),
	} {
		err := llm.RunTokens(background, [][]int64{{7}}, transparentllm.Edits(wrong))
		if class := transparentllm.ErrInvalidRequest; !strings.Contains(fmt.Sprint(err), words) ||
			!errors.Is(err, class) && !errors.Is(err, transparentllm.ErrNotRun) {
			t.Errorf("%s: %v", words, err)
		}
	}
	many := make([]edit, 513)
	for i := range many {
		many[i] = transparentllm.Zero(at(0), all())
	}
	if err := llm.Run(background, []string{"x"}, transparentllm.Edits(many...)); !errors.Is(err, transparentllm.ErrTooLarge) ||
		!strings.Contains(err.Error(), "513 edits of one run, at most 512") {
		t.Errorf("%v", err)
	}
	if len(k.asked) != 1 {
		t.Errorf("%d runs were asked for", len(k.asked))
	}
}

func TestWhatIsSentOfAnEdit(t *testing.T) {
	k := &keeper{features: []string{"edits"}}
	llm := k.client(t)
	edited(t, llm)
	id := must(llm.RunID())(t)
	edited(t, llm.Copy(),
		transparentllm.Noise(transparentllm.AtNeurons(-1, 3, 5), 0.5, -7, transparentllm.LastPosition()),
		transparentllm.Clamp(transparentllm.AtPattern(0, 1), transparentllm.NeuronOutput(1, 7).Minus(transparentllm.Unembedding(5)), 30,
			math.Inf(1), transparentllm.Positions(0, -1).OfRows(-1)),
		transparentllm.Patch(transparentllm.AtHead(1, 2), llm, transparentllm.Positions(0).OfRows(0), transparentllm.FromPositions(-2),
			transparentllm.FromRows(1)))
	got := k.asked[1].Edits
	three, one := int32(2), int32(1)
	for i, want := range []*pb.Intervention{
		{Site: &pb.Site{Kind: pb.SiteKind_SITE_KIND_NEURONS, Layer: -1, Neurons: []int32{3, 5}},
			Positions: &pb.Intervention_LastPosition{LastPosition: true}, Rows: &pb.Intervention_AllRows{AllRows: true},
			Operation: &pb.Intervention_Noise{Noise: &pb.NoiseEdit{Sd: 0.5, Seed: -7}}},
		{Site: &pb.Site{Kind: pb.SiteKind_SITE_KIND_PATTERN, Head: &one},
			Positions: &pb.Intervention_ChosenPositions{ChosenPositions: &pb.Indices{Indices: []int32{0, -1}}},
			Rows:      &pb.Intervention_ChosenRows{ChosenRows: &pb.Indices{Indices: []int32{-1}}},
			Operation: &pb.Intervention_Clamp{Clamp: &pb.ClampEdit{Least: 30, Most: math.Inf(1), Vector: &pb.Vector{
				Source: &pb.Vector_Difference{Difference: &pb.VectorDifference{
					Minuend:    &pb.Vector{Source: &pb.Vector_NeuronOutput{NeuronOutput: &pb.NeuronVector{Layer: 1, Neuron: 7}}},
					Subtrahend: &pb.Vector{Source: &pb.Vector_Unembedding{Unembedding: 5}}}}}}}},
		{Site: &pb.Site{Kind: pb.SiteKind_SITE_KIND_HEAD, Layer: 1, Head: &three},
			Positions: &pb.Intervention_ChosenPositions{ChosenPositions: &pb.Indices{Indices: []int32{0}}},
			Rows:      &pb.Intervention_ChosenRows{ChosenRows: &pb.Indices{Indices: []int32{0}}},
			Operation: &pb.Intervention_Patch{Patch: &pb.PatchEdit{RunId: id, SourceRows: &pb.Indices{Indices: []int32{1}},
				SourcePositions: &pb.Indices{Indices: []int32{-2}}}}},
	} {
		if !proto.Equal(got[i], want) {
			t.Errorf("%v, not %v", got[i], want)
		}
	}
}

func TestLostSourcesAreRunAgainTheFirstOnesFirst(t *testing.T) {
	k := &keeper{features: []string{"edits"}}
	llm := k.client(t)
	first, second, last := llm.Copy(), llm.Copy(), llm.Copy()
	edited(t, first, transparentllm.Zero(at(1), all()))
	edited(t, second, transparentllm.Patch(at(2), first, all()))
	of := must(second.RunID())(t)
	for _, each := range []*client{first, second} {
		if err := each.Release(background); err != nil {
			t.Fatal(err)
		}
	}
	edited(t, first) // what second takes from is still the run that it was made of
	k.asked = nil
	edited(t, last, transparentllm.Patch(at(3), second, all()))
	var layers []int32
	for _, asked := range k.asked {
		layers = append(layers, asked.Edits[0].Site.Layer)
	}
	if want := []int32{3, 2, 1, 2, 3}; !reflect.DeepEqual(layers, want) || !k.held[of] {
		t.Errorf("%v, not %v", layers, want)
	}
}

func TestALostSourceStaysLostWithoutRerun(t *testing.T) {
	k := &keeper{features: []string{"edits"}}
	llm := k.client(t, transparentllm.WithoutRerun())
	edited(t, llm)
	if err := llm.Release(background); err != nil {
		t.Fatal(err)
	}
	err := llm.RunTokens(background, [][]int64{{7}}, transparentllm.Edits(transparentllm.Mean(at(0), llm, all()),
		transparentllm.Patch(at(0), llm, all())))
	if !errors.Is(err, transparentllm.ErrNotFound) || len(k.asked) != 2 {
		t.Errorf("%v after %d runs", err, len(k.asked))
	}
}

func TestAServerWithoutEditsIsAskedForNone(t *testing.T) {
	k := &keeper{}
	llm := k.client(t)
	edited(t, llm)
	err := llm.RunTokens(background, [][]int64{{7}}, transparentllm.Edits(transparentllm.Zero(at(0), all())))
	if !errors.Is(err, transparentllm.ErrNotSupported) || len(k.asked) != 1 {
		t.Errorf("%v after %d runs", err, len(k.asked))
	}
}

func TestEffectsAreOnesOfEachEdit(t *testing.T) {
	k := &keeper{features: []string{"edits"}}
	llm := k.client(t)
	if _, err := llm.Effects(); !errors.Is(err, transparentllm.ErrNotRun) {
		t.Errorf("%v", err)
	}
	edited(t, llm, transparentllm.Zero(at(0), all()))
	if effects := must(llm.Effects())(t); len(effects) != 1 || len(effects[0].Edit) != 1000 {
		t.Errorf("%v", effects)
	}
	k.more = 1
	for _, edits := range [][]edit{nil, {transparentllm.Zero(at(0), all())}} {
		if err := llm.RunTokens(background, [][]int64{{7}}, transparentllm.Edits(edits...)); !errors.Is(err, transparentllm.ErrInternal) {
			t.Errorf("%v", err)
		}
	}
	for want, effect := range map[float64]transparentllm.EditEffect{0.5: {DeltaNorm: 1, Norm: 2}, 0: {}, math.Inf(1): {DeltaNorm: 1}} {
		if effect.Relative() != want {
			t.Errorf("%v of %v, not %v", effect.Relative(), effect, want)
		}
	}
}
